//! The power of all members is cut, again and again, and what they acknowledged is there.
//!
//! The members' disk is an image behind a loop device. A cut is a copy of that image while its writer stands still: it holds
//! what reached the disk, and nothing that was only on its way there. The next members start from the copy.
//!
//! `KCTL_TEST_CUTS` says how many cuts (20 without it). With the feature `mutants` a store that does not wait for its disk
//! takes part, to see that cuts do find what they are there to find.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kctl_control_plane::state::Command as Change;
use kctl_control_plane::state::model::NodeFacts;
use kctl_shared::name::{GroupName, NodeId};
use kctl_tests::cluster::hold;
use kctl_tests::dice::number;
use kctl_tests::members::{Members, until};

const DIR: &str = "KCTL_POWER_DIR";
const ADDRESSES: &str = "KCTL_POWER_ADDRESSES";
/// Nodes whose start counters are written, over and over.
const NODES: u64 = 60;
const WRITERS: u64 = 8;
/// Acknowledgements between two cuts.
const BETWEEN: usize = 150;

/// The highest start counter of each node.
type Counters = BTreeMap<String, u64>;

fn sh(command: &str) -> Result<(), String> {
    let done = Command::new("sh").arg("-c").arg(command).output().map_err(|e| e.to_string())?;
    let told = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(format!("{command}: {told}")) }
}

/// A disk whose power can be cut.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Result<Self, String> {
        let disk = Self { dir: tempfile::Builder::new().prefix("kctl-power-").tempdir().unwrap() };
        let image = disk.image();
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        sh(&format!("mkfs.ext4 -q -F {}", image.display()))?;
        fs::create_dir(disk.mounted()).unwrap();
        disk.on()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn on(&self) -> Result<(), String> {
        sh(&format!("mount -o loop {} {}", self.image().display(), self.mounted().display()))
    }

    /// The disk as it is at one instant. The kernel may write behind the writer's back, and a copy takes time: what is
    /// the same after it as in it was so for an instant in between.
    fn copy(&self) {
        let image = self.image();
        let (image, copy) = (image.display(), image.with_extension("img.cut"));
        kctl_tests::until("the disk to be at rest", 30, || {
            sh(&format!("cp --sparse=always {image} {}", copy.display())).unwrap();
            sh(&format!("cmp -s {image} {}", copy.display())).ok()
        });
    }

    /// From here on the disk holds what the copy holds.
    fn swap(&self) {
        sh(&format!("umount {}", self.mounted().display())).unwrap();
        fs::rename(self.dir.path().join("disk.img.cut"), self.image()).unwrap();
        self.on().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = sh(&format!("umount -l {}", self.mounted().display()));
    }
}

/// Members in a process of their own that say what they found, and then what they acknowledged.
struct Writer {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

fn read(stdout: ChildStdout, lines: Arc<Mutex<Vec<String>>>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        lines.lock().unwrap().push(line);
    }
}

impl Writer {
    fn start(dir: &Path, addresses: &[String], mutant: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "members_in_a_process_of_their_own", "--ignored", "--nocapture"]);
        command.env(DIR, dir).env(ADDRESSES, addresses.join(",")).env("KCTL_MUTANT", mutant);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (stdout, lines) = (process.stdout.take().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = lines.clone();
        let reader = Some(std::thread::spawn(move || read(stdout, kept)));
        Self { process, lines, reader }
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// The counters in lines that begin with `word`.
    fn counters(&self, word: &str) -> Counters {
        let mut counters = Counters::new();
        for line in self.lines.lock().unwrap().iter() {
            let [first, node, boot] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            if first == word {
                let known = counters.entry(node.to_owned()).or_default();
                *known = boot.parse::<u64>().unwrap().max(*known);
            }
        }
        counters
    }

    fn said(&self, start: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|l| l.starts_with(start)).count()
    }

    fn end(mut self) -> Counters {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
        // What it had said is in the pipe.
        self.reader.take().unwrap().join().unwrap();
        self.counters("acknowledged")
    }
}

/// What the members lost at one of `cuts` cuts, or what else kept them from coming back.
fn cut_again_and_again(disk: &Disk, cuts: u64, mutant: &str) -> Result<usize, String> {
    let addresses = Members::free_addresses(3);
    let mut promised = Counters::new();
    for cut in 0..=cuts {
        let mut writer = Writer::start(&disk.mounted(), &addresses, mutant);
        kctl_tests::until("the members to come back", 60, || {
            (writer.said("ready") > 0 || writer.has_ended()).then_some(())
        });
        if writer.said("ready") == 0 {
            let words = writer.lines.lock().unwrap().join("\n");
            return Err(format!("they do not come back after cut {cut}: {words}"));
        }
        let found = writer.counters("found");
        let lost = promised.iter().find(|(node, boot)| found.get(*node).is_none_or(|f| f < boot));
        if let Some((node, boot)) = lost {
            let now = found.get(node);
            return Err(format!("{node} was acknowledged at {boot} and is at {now:?} after cut {cut}"));
        }
        if cut == cuts {
            writer.end();
            break;
        }
        kctl_tests::until("acknowledgements", 60, || {
            assert!(!writer.has_ended(), "{:?}", writer.lines.lock().unwrap());
            (writer.said("acknowledged") >= BETWEEN).then_some(())
        });
        hold(&writer.process.id().into());
        disk.copy();
        promised = writer.end();
        disk.swap();
    }
    Ok(promised.len())
}

fn disk() -> Option<Disk> {
    match Disk::new() {
        Ok(disk) => Some(disk),
        Err(why) if std::env::var("KCTL_TESTS_STRICT").is_ok_and(|v| v == "1") => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts_of_all_members() {
    let Some(disk) = disk() else { return };
    let cuts = number("KCTL_TEST_CUTS", 20);
    let counters = cut_again_and_again(&disk, cuts, "").unwrap();
    println!("{cuts} cuts, {counters} counters acknowledged before the last one, none lost");
}

#[cfg(feature = "mutants")]
#[test]
fn a_store_that_does_not_wait_for_its_disk_is_found_out() {
    let Some(disk) = disk() else { return };
    let found = cut_again_and_again(&disk, number("KCTL_TEST_CUTS", 20), "no-fdatasync");
    println!("without the wait: {}", found.as_ref().unwrap_err());
}

/// Not a test: what [`Writer`] starts.
#[test]
#[ignore = "a part of the other tests here"]
fn members_in_a_process_of_their_own() {
    let (Ok(dir), Ok(addresses)) = (std::env::var(DIR), std::env::var(ADDRESSES)) else { return };
    let addresses: Vec<_> = addresses.split(',').map(str::to_owned).collect();
    tokio::runtime::Runtime::new().unwrap().block_on(write(Path::new(&dir), &addresses));
}

/// One write, so that no line is half in the pipe.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn register(node: u64, boot: u64) -> Change {
    let (node, group) = (NodeId::parse(&format!("n{node}")).unwrap(), GroupName::parse("default").unwrap());
    Change::RegisterNode { node, group, nonce: "x".into(), boot, facts: NodeFacts::default() }
}

async fn write(dir: &Path, addresses: &[String]) {
    // Few enough that cuts fall on snapshots and purges too.
    let mut members = Members::at(dir, addresses, 100);
    if let Err(fault) = members.start_all().await {
        return say(&format!("{fault}"));
    }
    let leader = members.leader().await;
    until("a confirmed read", || async { leader.linearizable().await.ok() }).await;
    let found: Vec<_> = leader.with_state(|s| s.nodes.iter().map(|(id, n)| (id.clone(), n.boot)).collect());
    found.iter().for_each(|(node, boot)| say(&format!("found {node} {boot}")));
    say("ready");
    let first = found.iter().map(|(_, boot)| *boot).max().unwrap_or(0) + 1;
    let tasks = (0..WRITERS).map(|writer| {
        let leader = leader.clone();
        tokio::spawn(async move {
            for boot in first.. {
                // Each node has one writer, so that its counters are acknowledged in order.
                for node in (writer..NODES).step_by(WRITERS as usize) {
                    match leader.propose(vec![register(node, boot)]).await.as_deref() {
                        Ok([Ok(_)]) => say(&format!("acknowledged n{node} {boot}")),
                        other => say(&format!("refused n{node}: {other:?}")),
                    }
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        drop(task.await);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
}
