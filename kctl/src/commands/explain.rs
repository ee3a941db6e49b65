//! `kctl explain [CODE]`.

use kctl_shared::codes::{self, Entry};
use kctl_shared::fault::Fault;

use crate::fail::Outcome;
use crate::output::{Printer, Table};

pub fn run(printer: &Printer, code: Option<&str>) -> Outcome {
    let Some(code) = code else {
        let all: Vec<Entry> = codes::all().collect();
        return printer.many(&all, |e| e.code.to_owned(), |wide| table(&all, wide));
    };
    let entry = codes::find(code).ok_or_else(|| unknown(code))?;
    printer.one(&entry, entry.code, || {
        format!("{}\n\n{}\n\nwhy    {}\nto do  {}\n", entry.code, entry.means, entry.why, entry.todo)
    })
}

fn unknown(code: &str) -> Fault {
    let near = codes::near(code);
    let hint = if near.is_empty() {
        "kctl explain lists all".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    let shown: String = code.chars().take(80).collect();
    Fault::new("CODE_UNKNOWN", format!("there is no code {shown:?}")).hint(hint)
}

fn table(all: &[Entry], wide: bool) -> Table {
    let mut head: Vec<String> = ["CODE", "MEANS"].map(str::to_owned).to_vec();
    if wide {
        head.push("TO DO".into());
    }
    let row = |e: &Entry| {
        let mut row = vec![e.code.to_owned(), e.means.to_owned()];
        row.extend(wide.then(|| e.todo.to_owned()));
        row
    };
    std::iter::once(head).chain(all.iter().map(row)).collect()
}
