use headworks::audit::{Audit, Events, Row, Scope};

use super::data::Data;
use super::exit::Exit;
use super::say;
use super::table::{Narrow, Rows, inert, json, prose, screen};

/// What `headworks audit` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuditArgs {
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// Ends with 1 where a sum does not hold.
pub(crate) fn run(data: &Data, args: &AuditArgs) -> Result<Exit, (Exit, String)> {
    let audit = data.open()?.audit()?;
    let text = if args.json { json(&audit) } else { Ok(render(&audit, screen())) };
    let text = text.map_err(|why| (Exit::Internal, why.to_string()))?;
    Ok(match say(text.as_bytes()) {
        Exit::Ok if !audit.holds => Exit::Failure,
        said => said,
    })
}

/// What a screen may do without.
const NARROW: Narrow<'_> = Narrow {
    names: &[
        ("dead-lettered", "dead"),
        ("in the store", "in store"),
        ("dead letters", "letters"),
        ("discarded", "dropped"),
    ],
    spare: &["shed", "dropped", "in flight"],
    long: &[("tenant", 11)],
};

/// What `headworks audit` prints.
fn render(audit: &Audit, width: Option<usize>) -> String {
    let mut rows = Rows::new(&[
        "tenant",
        "#accepted",
        "#stored",
        "#dead-lettered",
        "#shed",
        "#discarded",
        "#in flight",
        "#in the store",
        "#dead letters",
        "",
    ]);
    for row in audit.tenants.iter().chain([&audit.all]) {
        rows.push(line(row));
    }
    let (table, mut text) = (rows.fit(width, &NARROW), "\n".to_owned());
    text += &match audit.malformed.counted {
        Some(counted) => format!("{counted} malformed frames counted, {} kept as dead letters\n", audit.malformed.kept),
        None => format!("{} malformed frames kept as dead letters\n", audit.malformed.kept),
    };
    let purged = audit.all.held.purged + audit.malformed.purged;
    if purged > 0 {
        text += &format!("{purged} dead letters were purged, and are counted as kept\n");
    }
    if audit.all.pruned > 0 {
        text +=
            &format!("{} stored events were pruned by their retention, and are counted as there\n", audit.all.pruned);
    }
    match audit.waiting {
        0 => {}
        1 => text += "1 frame waits at the door, as for its tenant's rate: it was received, and has no answer yet\n",
        frames => {
            text += &format!(
                "{frames} frames wait at the door, as for their tenant's rate: they were received, and have no answer yet\n"
            );
        }
    }
    for difference in &audit.differences {
        let who = difference.tenant.as_ref().map_or_else(|| "frames".to_owned(), ToString::to_string);
        let (found, expected) = (difference.found, difference.expected);
        text += &format!("{who}: {} ({found}, not {expected})\n", inert(&difference.meaning));
    }
    for damage in &audit.damage {
        text += &format!("damage: {}\n", inert(damage));
    }
    for unchecked in &audit.unchecked {
        text += &format!("not checked: {}\n", inert(unchecked));
    }
    text += match (audit.holds, audit.scope) {
        (true, Scope::Journal) if audit.all.frames.is_some() => "Both sums hold.\n",
        (true, Scope::Journal) => "The sum of events holds.\n",
        (true, Scope::Run) => "Both sums hold, of all that came since the daemon was started.\n",
        (true, Scope::Store) => "The store holds what its batches say.\n",
        (false, _) => "It does NOT add up.\n",
    };
    table + &prose(&text, width)
}

fn line(Row { tenant, holds, events, held, .. }: &Row) -> Vec<String> {
    let said = |number: fn(&Events) -> u64| events.as_ref().map_or_else(|| "-".to_owned(), |e| number(e).to_string());
    vec![
        tenant.as_ref().map_or_else(|| "all tenants".to_owned(), ToString::to_string),
        said(|events| events.accepted),
        said(|events| events.stored),
        said(|events| events.dead_lettered),
        said(|events| events.shed),
        said(|events| events.discarded),
        said(|events| events.in_flight),
        held.rows.to_string(),
        held.dead_letters.to_string(),
        if *holds { "holds" } else { "DIFFERS" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use headworks::TenantId;
    use headworks::audit::{Account, Books, Frames, Held, Holdings, Sources, audit};

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn sample(rows: u64) -> Audit {
        let events = Events { accepted: 100, stored: 98, dead_lettered: 2, ..Events::default() };
        let account = |name| Account::at_rest(tenant(name), Books { frames: None, events });
        let held = |rows| Held { events: 98, rows, dead_letters: 2, purged: 0, damaged: 0 };
        let holdings = Holdings {
            tenants: [(tenant("acme"), held(98)), (tenant("b"), held(rows))].into(),
            malformed: 1,
            ..Holdings::default()
        };
        let frames = Frames { received: 201, accepted: 200, malformed: 1, ..Frames::default() };
        let sources = Sources { before: frames, after: frames, letters_pending: 0, waiting: 0 };
        audit(Scope::Run, Some(vec![account("acme"), account("b")]), Some(sources), &holdings)
    }

    #[test]
    fn every_number_has_its_column_and_every_difference_its_sentence() {
        let expected = "\
tenant       accepted  stored  dead-lettered  shed  discarded  in flight  in the store  dead letters
acme              100      98              2     0          0          0            98             2  holds
b                 100      98              2     0          0          0            95             2  DIFFERS
all tenants       200     196              4     0          0          0           193             4  DIFFERS

1 malformed frames counted, 1 kept as dead letters
b: the store holds 3 events fewer than the journal says were stored: 3 rows were deleted from its batches (95, not 98)
not checked: what came before this start of the daemon: its journal is in memory
It does NOT add up.
";
        assert_eq!(render(&sample(95), None), expected);
        let narrow = render(&sample(95), Some(80));
        let table: Vec<_> = narrow.lines().take(4).collect();
        assert!(table.iter().all(|line| line.len() <= 80), "{narrow}");
        assert!(table[2].ends_with("DIFFERS") && table[0].contains("in store"), "{narrow}");
        assert!(
            render(&sample(98), None).ends_with("\nBoth sums hold, of all that came since the daemon was started.\n")
        );
    }

    #[test]
    fn what_was_not_checked_is_not_said_to_hold() {
        let audit = |sources| audit(Scope::Journal, Some(vec![]), sources, &Holdings::default());
        let at_rest = render(&audit(None), None);
        assert!(at_rest.contains("not checked: the sum of frames"), "{at_rest}");
        assert!(at_rest.ends_with("\nThe sum of events holds.\n") && !at_rest.contains("Both"), "{at_rest}");
        let frames = Frames { received: 9, accepted: 7, ..Frames::default() };
        let sources = |waiting| Sources { before: frames, after: frames, letters_pending: 0, waiting };
        let live = render(&audit(Some(sources(2))), None);
        assert!(live.contains("\n2 frames wait at the door") && live.ends_with("\nBoth sums hold.\n"), "{live}");
        let lost = render(&audit(Some(sources(1))), None);
        assert!(lost.contains("1 frame was received without an answer"), "{lost}");
        assert!(lost.contains("\n1 frame waits at the door") && lost.ends_with("\nIt does NOT add up.\n"), "{lost}");
    }

    #[test]
    fn where_no_journal_is_left_its_columns_are_empty() {
        let held = Held { events: 3, rows: 3, dead_letters: 0, purged: 0, damaged: 0 };
        let holdings = Holdings { tenants: [(tenant("acme"), held)].into(), malformed: 4, ..Holdings::default() };
        let text = render(&audit(Scope::Store, None, None, &holdings), None);
        assert!(text.lines().nth(1).is_some_and(|line| line.split_whitespace().nth(1) == Some("-")), "{text}");
        assert!(
            text.contains("\n4 malformed frames kept as dead letters\nnot checked: the journal was in memory"),
            "{text}"
        );
        assert!(text.ends_with("\nThe store holds what its batches say.\n"), "{text}");
    }
}
