use std::fmt::Write as _;

use headworks::admin::{Letter, LetterBody, reason};
use headworks::{Code, DeadLetterQuery, TenantId};

use super::table::{Rows, inert, json};

/// What `headworks dead-letters list` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of this tenant.
    #[arg(long, value_name = "T")]
    tenant: Option<TenantId>,
    /// Only those given up for this reason: a code such as bad_json or store_permanent.
    #[arg(long, value_name = "CODE", value_parser = reason)]
    reason: Option<Code>,
    /// At most so many, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one JSON document, with whole bodies, instead of a table.
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    /// What to ask the store for.
    pub(crate) fn query(&self) -> DeadLetterQuery {
        let mut query = DeadLetterQuery::default();
        query.tenant.clone_from(&self.tenant);
        query.code = self.reason;
        query.limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        query
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
    /// Print the bytes of the body as they came, and nothing else.
    #[arg(long)]
    raw: bool,
}

/// What `list` prints.
pub(crate) fn list(args: &ListArgs, letters: &[Letter], screen: Option<usize>) -> Result<String, serde_json::Error> {
    if args.json {
        return json(&letters);
    }
    let mut rows = Rows::new(&["id", "kind", "tenant", "reason", "#attempts", "when", "#bytes", "body"]);
    for letter in letters {
        rows.push(vec![
            letter.id.clone(),
            letter.kind.clone(),
            letter.tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            letter.reason.clone(),
            letter.attempts.to_string(),
            letter.last_at.clone(),
            letter.original_bytes.to_string(),
            beginning(letter.body.bytes()),
        ]);
    }
    Ok(rows.render(screen))
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
        original if original > kept => format!("{original} bytes, of which the first {kept} are kept"),
        original => format!("{original} bytes"),
    };
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
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<10}{}", inert(&value));
    }
    text += "body\n";
    match &letter.body {
        // Set in, so that no line of a body can pass for a line of ours.
        LetterBody::Text(body) => {
            for line in body.lines() {
                let _ = writeln!(text, "  {}", inert(line));
            }
        }
        LetterBody::Bytes(bytes) => hex_dump(bytes, &mut text),
    }
    Ok(text.into_bytes())
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
    use headworks::{BatchId, Cause, DeadLetter, DeadLetterKind, Opening, Seq, UnixMillis};

    use super::*;

    fn letter(body: impl Into<Vec<u8>>) -> DeadLetter {
        let body = body.into();
        let tenant = TenantId::new("acme").unwrap();
        DeadLetter {
            id: "7-1".into(),
            kind: DeadLetterKind::Event,
            batch: Some((BatchId { opening: Opening(1), tenant: tenant.clone(), seq: Seq(4) }, 2)),
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
        let query = parsed::<ListArgs>(&["--tenant", "acme", "--reason", "bad_json", "--limit", "3"]).unwrap().query();
        assert_eq!((query.tenant.unwrap().as_str(), query.code, query.limit), ("acme", Some(Code::BadJson), 3));
        let query = parsed::<ListArgs>(&[]).unwrap().query();
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
    fn raw_is_the_body_to_the_byte() {
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(shown(&["7-1", "--raw"], &letter(every.clone())), every);
    }
}
