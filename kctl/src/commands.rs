//! One file a verb; here is only how they are reached.

mod adopt;
mod approve;
mod audit;
mod batch;
mod cluster;
mod completion;
mod conf;
mod consent;
mod dev;
mod doctor;
mod duty;
mod enable;
mod explain;
mod group;
mod install;
mod lint;
mod new;
mod operation;
mod pack;
mod preview;
mod read;
mod remove;
mod status;
mod undo;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, Format, NodeCommand, PluginCommand, RemoveStep};
use crate::client::Client;
use crate::context;
use crate::fail::{Fail, Outcome};
use crate::output::Printer;

/// What every verb gets.
pub struct Verb {
    pub client: Client,
    pub printer: Printer,
}

pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _closed = e.print();
            return ExitCode::from(if e.use_stderr() { 64 } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Fail::from(e).report(),
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => fail.report(),
    }
}

async fn dispatch(cli: Cli) -> Outcome {
    let printer = Printer::new(&cli.global);
    if printer.format == Format::Sarif && !matches!(cli.command, Command::Plugin(PluginCommand::Lint(_))) {
        return Err(Fail::usage("FORMAT_UNKNOWN", "only lint speaks SARIF", "use -o json"));
    }
    let verb =
        || -> Outcome<Verb> { Ok(Verb { client: Client::new(context::resolve(&cli.global)?), printer }) };
    match cli.command {
        Command::Completion { shell } => completion::run(shell),
        Command::Conf(command) => conf::run(&printer, &command),
        Command::Dev(args) => dev::run(args).await,
        Command::Doctor(args) if args.local => doctor::local(&printer, &args).await,
        Command::Doctor(args) => doctor::cluster(&verb()?, &args).await,
        Command::Explain { code } => explain::run(&printer, code.as_deref()),
        Command::Version => version::run(&cli.global, &printer).await,
        Command::Status { watch } => status::run(&verb()?, watch).await,
        Command::Operation(command) => operation::run(&verb()?, command).await,
        Command::Node(NodeCommand::Adopt(args)) => adopt::run(&verb()?, args).await,
        Command::Node(NodeCommand::Approve(args)) => approve::run(&verb()?, args).await,
        Command::Node(NodeCommand::Hold(args)) => {
            duty::hold(&verb()?, args, "hold", "held: nothing is changed on it").await
        }
        Command::Node(NodeCommand::Drain(args)) => {
            duty::hold(&verb()?, args, "drain", "held, and taken out of its load balancer").await
        }
        Command::Node(NodeCommand::Unhold(args)) => {
            duty::hold(&verb()?, args, "unhold", "free to be changed").await
        }
        Command::Node(NodeCommand::Reconcile(args)) => duty::reconcile(&verb()?, args).await,
        Command::Node(NodeCommand::Decommission(args)) => duty::decommission(&verb()?, args).await,
        Command::Group(command) => group::run(&verb()?, command).await,
        Command::Node(NodeCommand::List) => read::nodes(&verb()?).await,
        Command::Node(NodeCommand::Get { id }) => read::node(&verb()?, id).await,
        Command::Audit(args) => match audit::offline(&printer, &args) {
            Some(done) => done,
            None => audit::run(&verb()?, args).await,
        },
        Command::Cluster(command) => match cluster::offline(&printer, &command) {
            Some(done) => done,
            None => cluster::run(&verb()?, command).await,
        },
        Command::Plugin(command) => match command {
            PluginCommand::New(args) => new::run(&printer, &args),
            PluginCommand::Lint(args) => {
                let client = if args.against_cluster { Some(verb()?.client) } else { None };
                lint::run(&printer, client.as_ref(), &args).await
            }
            PluginCommand::Pack(args) => pack::run(&printer, &args),
            PluginCommand::Install(args) => install::run(&verb()?, *args).await,
            PluginCommand::Remove(args) => remove::run(&verb()?, args.removal, args.step).await,
            PluginCommand::Disable(args) => remove::run(&verb()?, args, RemoveStep::Disable).await,
            PluginCommand::Enable(args) => enable::run(&verb()?, args).await,
            PluginCommand::History(args) => undo::history(&verb()?, args).await,
            PluginCommand::Undo(args) => undo::undo(&verb()?, *args).await,
            PluginCommand::Pin { pin, version } => undo::pin(&verb()?, pin, version, false).await,
            PluginCommand::Unpin(args) => undo::pin(&verb()?, args, None, true).await,
            PluginCommand::List => read::plugins(&verb()?).await,
            PluginCommand::Get { name, group } => read::plugin(&verb()?, name, group).await,
        },
    }
}
