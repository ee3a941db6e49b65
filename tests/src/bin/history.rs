//! `history FILE`: says whether a history of concurrent clients is linearizable. Exit 0 if it is, 1 if not, 2 if it is no
//! history. The format is that of `kctl_tests::history::parse`.

use std::process::ExitCode;

use kctl_tests::history::{Verdict, check, parse};

fn judge() -> Result<Verdict, String> {
    let path = std::env::args().nth(1).ok_or("usage: history FILE")?;
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    check(&parse(&text)?)
}

fn main() -> ExitCode {
    match judge() {
        Ok(Verdict::Linearizable(order)) => {
            println!("linearizable: {} calls have an order", order.len());
            ExitCode::SUCCESS
        }
        Ok(Verdict::NotLinearizable { longest, stuck }) => {
            println!(
                "not linearizable: after {} calls no order goes on with the call of line {stuck:?}",
                longest.len()
            );
            println!("the longest order, by line: {longest:?}");
            ExitCode::from(1)
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
