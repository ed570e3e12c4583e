mod change;
mod editor;
mod filter;

use std::fmt::Write as _;
use std::time::SystemTime;

use clap::Subcommand;
use headworks::UnixMillis;
use headworks::admin::{Letter, LetterBody, LetterFilter};

use super::data::Data;
use super::exit::Exit;
use super::say;
use super::table::{Narrow, Rows, inert, json, screen};
use filter::Filter;

/// What `headworks dead-letters` does.
#[derive(Subcommand)]
pub(crate) enum DeadLetters {
    /// List the newest, oldest first
    List {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: ListArgs,
    },
    /// Show one whole
    Show {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: ShowArgs,
    },
    /// Bring some back as new events, by the normal way in; needs the daemon
    Replay {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: change::ReplayArgs,
    },
    /// Give one another body, to replay it, in your editor on a terminal; the bytes as they came are kept
    Edit {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: change::EditArgs,
    },
    /// Forget some for good; they stay counted
    Purge {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: change::PurgeArgs,
    },
    /// Write all, or some, to stdout
    Export {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        args: change::ExportArgs,
    },
}

pub(crate) fn run(command: &DeadLetters) -> Result<Exit, (Exit, String)> {
    let internal = |why: serde_json::Error| (Exit::Internal, why.to_string());
    match command {
        DeadLetters::List { data, args } => {
            let letters = data.open()?.dead_letters(&args.filter())?;
            let text = list(args, &letters, screen()).map_err(internal)?;
            Ok(say(text.as_bytes()))
        }
        DeadLetters::Show { data, args } => {
            let Some(letter) = data.open()?.dead_letter(&args.id)? else { return Err(missing(&args.id)) };
            Ok(say(&show(args, &letter).map_err(internal)?))
        }
        DeadLetters::Replay { data, args } => change::replay(data, args),
        DeadLetters::Edit { data, args } => change::edit(data, args),
        DeadLetters::Purge { data, args } => change::purge(data, args),
        DeadLetters::Export { data, args } => change::export(data, args),
    }
}

fn missing(id: &str) -> (Exit, String) {
    (Exit::Failure, format!("there is no dead letter {id:?}; `headworks dead-letters list` has the ids"))
}

/// What `headworks dead-letters list` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Only those that a replay brought back, or only those that none did.
    #[arg(long, value_name = "true|false")]
    replayed: Option<bool>,
    /// At most so many, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one JSON document, with whole bodies, instead of a table.
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    /// What to ask the store for.
    fn filter(&self) -> LetterFilter {
        LetterFilter { replayed: self.replayed, limit: Some(self.limit), ..self.filter.of(&[]) }
    }
}

/// What `headworks dead-letters show` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ShowArgs {
    /// The id, as `list` prints it.
    pub(crate) id: String,
    /// Print one JSON document.
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Print the bytes of the body, as they came or as they were edited, and nothing else.
    #[arg(long)]
    raw: bool,
}

type Cell<'a> = &'a dyn Fn(&Letter) -> String;

/// What `list` prints.
pub(crate) fn list(args: &ListArgs, letters: &[Letter], screen: Option<usize>) -> Result<String, serde_json::Error> {
    if args.json {
        return json(&letters);
    }
    // An id is whole on any screen: the other commands take it.
    let is_narrow = screen.is_some_and(|width| width < 120);
    let has_state = letters.iter().any(|letter| state(letter) != "-");
    let now = UnixMillis::from(SystemTime::now());
    let columns: [(&str, bool, Cell<'_>); 10] = [
        ("id", true, &|letter| letter.id.clone()),
        ("kind", !is_narrow, &|letter| letter.kind.clone()),
        ("tenant", true, &|letter| letter.tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
        ("reason", true, &|letter| letter.reason.clone()),
        ("state", has_state, &|letter| state(letter).to_owned()),
        ("#attempts", !is_narrow, &|letter| letter.attempts.to_string()),
        ("when", !is_narrow, &|letter| letter.last_at.clone()),
        ("#age", is_narrow, &|letter| age(now, &letter.last_at)),
        ("#bytes", !is_narrow, &|letter| letter.original_bytes.to_string()),
        ("body", true, &|letter| beginning(letter.body.bytes())),
    ];
    let columns: Vec<_> = columns.into_iter().filter(|(_, is_shown, _)| *is_shown).collect();
    let mut rows = Rows::new(&columns.iter().map(|(name, _, _)| *name).collect::<Vec<_>>());
    for letter in letters {
        rows.push(columns.iter().map(|(_, _, value)| value(letter)).collect());
    }
    let in_id =
        |letter: &Letter| letter.tenant.as_ref().is_none_or(|tenant| letter.id.contains(&format!("/{tenant}/")));
    let spare: &[&str] = if letters.iter().all(in_id) { &["tenant", "age"] } else { &["age"] };
    let narrow = Narrow { names: &[], spare, long: &[("body", 20), ("tenant", 8)] };
    Ok(if screen.is_some() { rows.fit(screen, &narrow) } else { rows.render(None) })
}

/// What was done with it.
fn state(letter: &Letter) -> &'static str {
    match (&letter.replayed_at, &letter.edited_at) {
        (Some(_), _) => "replayed",
        (None, Some(_)) => "edited",
        (None, None) => "-",
    }
}

fn age(now: UnixMillis, then: &str) -> String {
    humantime::parse_rfc3339(then).map_or_else(|_| "-".to_owned(), |then| filter::age(now, then.into()))
}

/// Enough of a body for any screen.
fn beginning(body: &[u8]) -> String {
    const ENOUGH: usize = 4096;
    String::from_utf8_lossy(&body[..body.len().min(ENOUGH)]).into_owned()
}

/// What `show` prints: bytes, since `--raw` says so.
pub(crate) fn show(args: &ShowArgs, letter: &Letter) -> Result<Vec<u8>, serde_json::Error> {
    if args.raw {
        return Ok(letter.body.bytes().to_vec());
    }
    if args.json {
        return json(letter).map(String::into_bytes);
    }
    let none = || "-".to_owned();
    let batch = match (&letter.batch, letter.place) {
        (Some(id), Some(place)) => format!("{id}, place {place}"),
        _ => none(),
    };
    let kept = letter.body.bytes().len() as u64;
    let size = match letter.original_bytes {
        original if letter.edited_at.is_some() => format!("{original} bytes as it came, {kept} edited"),
        original if original > kept => format!("{original} bytes, of which the first {kept} are kept"),
        original => format!("{original} bytes"),
    };
    let history = [("edited", &letter.edited_at), ("replayed", &letter.replayed_at)];
    let history = history.into_iter().filter_map(|(name, at)| Some((name, at.clone()?)));
    let lines = [
        ("id", letter.id.clone()),
        ("kind", letter.kind.clone()),
        ("tenant", letter.tenant.as_ref().map_or_else(none, ToString::to_string)),
        ("source", letter.source.clone().unwrap_or_else(none)),
        ("reason", format!("{}: {}", letter.reason, letter.detail)),
        ("attempts", letter.attempts.to_string()),
        ("arrived", letter.first_at.clone()),
        ("given up", letter.last_at.clone()),
        ("batch", batch),
        ("size", size),
    ];
    let mut text = String::new();
    for (name, value) in lines.into_iter().chain(history) {
        let _ = writeln!(text, "{name:<10}{}", inert(&value));
    }
    text += "body\n";
    whole(&letter.body, &mut text);
    if let Some(original) = &letter.original {
        text += "as it came\n";
        whole(original, &mut text);
    }
    Ok(text.into_bytes())
}

/// Set in, so that no line of a body can pass for a line of ours.
fn whole(body: &LetterBody, text: &mut String) {
    match body {
        LetterBody::Text(body) => {
            for line in body.lines() {
                let _ = writeln!(text, "  {}", inert(line));
            }
        }
        LetterBody::Bytes(bytes) => hex_dump(bytes, text),
    }
}

/// Sixteen bytes a line: where, in hex, and as ASCII.
fn hex_dump(bytes: &[u8], text: &mut String) {
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let ascii: String =
            bytes.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }).collect();
        let _ = writeln!(text, "  {:08x}  {hex:<48} |{ascii}|", line * 16);
    }
}

#[cfg(test)]
mod tests {
    use headworks::{BatchId, Cause, Code, DeadLetter, DeadLetterKind, DeadLetterQuery, Edit, Opening, Seq, TenantId};

    use super::*;

    fn letter(body: impl Into<Vec<u8>>) -> DeadLetter {
        let body = body.into();
        let tenant = TenantId::new("acme").unwrap();
        DeadLetter {
            id: "7-1".into(),
            kind: DeadLetterKind::Event,
            batch: Some((BatchId::new(Opening(1), tenant.clone(), Seq(4)), 2)),
            tenant: Some(tenant),
            source: Some("tcp".into()),
            cause: Cause::new(Code::StorePermanent, "refused\n\u{1b}[2Jid        forged"),
            attempts: 5,
            first_at: UnixMillis(1_732_233_600_007),
            last_at: UnixMillis(1_732_233_601_007),
            original_bytes: body.len() as u64,
            time: None,
            body: body.into(),
            edit: None,
            replayed_at: None,
        }
    }

    fn parsed<A: clap::Args>(words: &[&str]) -> Result<A, clap::Error> {
        let command = A::augment_args(clap::Command::new("x").no_binary_name(true));
        A::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    fn listed(words: &[&str], letters: &[DeadLetter]) -> String {
        let letters: Vec<_> = letters.iter().map(Letter::from).collect();
        list(&parsed(words).unwrap(), &letters, None).unwrap()
    }

    fn shown(words: &[&str], letter: &DeadLetter) -> Vec<u8> {
        show(&parsed(words).unwrap(), &Letter::from(letter)).unwrap()
    }

    #[test]
    fn the_flags_become_the_query() {
        let query = parsed::<ListArgs>(&["--tenant", "acme", "--reason", "bad_json", "--limit", "3"]);
        let query = query.unwrap().filter().query().unwrap();
        assert_eq!((query.tenant.unwrap().as_str(), query.code, query.limit), ("acme", Some(Code::BadJson), 3));
        let query = parsed::<ListArgs>(&[]).unwrap().filter().query().unwrap();
        assert_eq!((query.tenant, query.code, query.limit), (None, None, DeadLetterQuery::default().limit));
    }

    #[test]
    fn a_flag_that_makes_no_sense_is_refused_with_what_is_valid() {
        for (words, says) in [
            (["--reason", "bad"], "bad_json, "),
            (["--tenant", "../x"], "must begin with a letter or a digit"),
            (["--limit", "0"], "0 is not in 1"),
        ] {
            let why = parsed::<ListArgs>(&words).unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        }
        assert!(parsed::<ShowArgs>(&["7-1", "--raw", "--json"]).is_err());
    }

    #[test]
    fn a_list_has_a_line_for_each_letter_whatever_is_in_it() {
        let frame =
            DeadLetter { tenant: None, kind: DeadLetterKind::Frame, attempts: 0, ..letter(b"\xff\x1b[2J\n".to_vec()) };
        let text = listed(&[], &[letter("{\"a\":1}"), frame]);
        let expected = "\
id   kind   tenant  reason           attempts  when                      bytes  body
7-1  event  acme    store_permanent         5  2024-11-22T00:00:01.007Z      7  {\"a\":1}
7-1  frame  -       store_permanent         0  2024-11-22T00:00:01.007Z      6  \u{fffd}\\u{1b}[2J\\n
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_list_shortens_a_long_body_and_its_json_does_not() {
        let long = letter("é".repeat(100_000));
        let text = listed(&[], std::slice::from_ref(&long));
        assert!(text.ends_with("…\n") && text.len() < 400, "{text}");
        let document: serde_json::Value = serde_json::from_str(&listed(&["--json"], &[long])).unwrap();
        assert_eq!(document[0]["body"].as_str().unwrap().chars().count(), 100_000);
    }

    #[test]
    fn show_tells_everything_and_no_line_of_a_value_passes_for_one_of_ours() {
        let mut letter = letter("id        forged\nü\u{9b}2J\r\n\tend");
        letter.original_bytes = 9_000;
        let text = String::from_utf8(shown(&["7-1"], &letter)).unwrap();
        let expected = "\
id        7-1
kind      event
tenant    acme
source    tcp
reason    store_permanent: refused\\n\\u{1b}[2Jid        forged
attempts  5
arrived   2024-11-22T00:00:00.007Z
given up  2024-11-22T00:00:01.007Z
batch     0000000000000001/acme/4, place 2
size      9000 bytes, of which the first 29 are kept
body
  id        forged
  ü\\u{9b}2J
  \\tend
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_body_that_is_no_text_is_shown_in_hex() {
        let text =
            String::from_utf8(shown(&["7-1"], &letter((240..=255).chain(*b"a\x1bz").collect::<Vec<u8>>()))).unwrap();
        let expected = "body
  00000000  f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff  |................|
  00000010  61 1b 7a                                         |a.z|
";
        assert!(text.ends_with(expected), "{text}");
        let document: serde_json::Value =
            serde_json::from_slice(&shown(&["7-1", "--json"], &letter([0xff, 0]))).unwrap();
        assert_eq!((&document["body_hex"], document.get("body")), (&"ff00".into(), None));
    }

    #[test]
    fn what_was_edited_and_replayed_says_so_and_shows_both_bodies() {
        let edit = Some(Edit { at: UnixMillis(1_732_233_602_007), original: (&b"as\xff"[..]).into() });
        let letter = DeadLetter { edit, replayed_at: Some(UnixMillis(1_732_233_603_007)), ..letter("mended") };
        let text = String::from_utf8(shown(&["7-1"], &letter)).unwrap();
        let expected = "size      6 bytes as it came, 6 edited
edited    2024-11-22T00:00:02.007Z
replayed  2024-11-22T00:00:03.007Z
body
  mended
as it came
  00000000  61 73 ff                                         |as.|
";
        assert!(text.ends_with(expected), "{text}");
        assert!(listed(&[], &[letter]).contains("store_permanent  replayed"));
    }

    #[test]
    fn a_list_fits_a_screen_of_80_columns_with_every_id_whole() {
        let long = DeadLetter { id: "5f0c9b1e2d3a4f60/acme/1#0".into(), ..letter("x".repeat(500)) };
        let text = list(&parsed(&[]).unwrap(), &[Letter::from(&long)], Some(80)).unwrap();
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 80), "{text}");
        assert!(text.contains("5f0c9b1e2d3a4f60/acme/1#0  acme    store_permanent"), "{text}");
    }

    #[test]
    fn raw_is_the_body_to_the_byte() {
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(shown(&["7-1", "--raw"], &letter(every.clone())), every);
    }
}
