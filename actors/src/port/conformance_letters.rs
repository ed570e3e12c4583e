//! The dead letters' half of the conformance suites.

use std::sync::Arc;

use bytes::Bytes;

use super::conformance::{batch_id, odd_bodies, tenant};
use super::{
    DeadLetter, DeadLetterKind, DeadLetterPage, DeadLetterQuery, DeadLetters, Edit, EditAnswer, ReplayAnswer,
    StorageError,
};
use crate::model::{Cause, Code, StreamId, UnixMillis};

/// Checks the part of [`DeadLetters`] that a system needs, `put` and `list`: letters come back byte for byte, once, filtered
/// and in order.
///
/// `make` makes a fresh, empty place for them.
///
/// # Panics
/// Where the contract is broken; the message says how.
pub async fn dead_letters<D: DeadLetters>(make: impl AsyncFn() -> D) {
    keeps_letters_whole(&make().await).await;
    keeps_a_letter_once(&make().await).await;
    lists_the_newest_oldest_first(&make().await).await;
}

/// Checks all of [`DeadLetters`]: [`dead_letters`], and that letters are looked up, edited, purged and replayed.
///
/// # Panics
/// Where the contract is broken; the message says how.
pub async fn managed_dead_letters<D: DeadLetters>(make: impl AsyncFn() -> D) {
    dead_letters(&make).await;
    filters_by_every_field(&make().await).await;
    gives_every_letter_on_one_page(&make().await).await;
    keeps_the_bytes_as_they_came_beside_an_edit(&make().await).await;
    purges_what_matches_and_nothing_else(&make().await).await;
    replays_each_letter_in_one_run_at_a_time(&make().await).await;
    edits_nothing_that_is_or_was_replayed(&make().await).await;
}

async fn keeps_letters_whole<D: DeadLetters>(letters: &D) {
    let mut put: Vec<_> =
        odd_bodies().into_iter().enumerate().map(|(n, body)| letter(&format!("l{n}"), n, body)).collect();
    put.push(DeadLetter {
        kind: DeadLetterKind::Frame,
        tenant: None,
        source: None,
        batch: None,
        attempts: 0,
        original_bytes: 1 << 40,
        ..letter("bare", 99, b"no tenant".to_vec())
    });
    put.push(DeadLetter {
        edit: Some(Edit { at: UnixMillis(7), original: Bytes::from_static(b"\xff as it came\0") }),
        replayed_at: Some(UnixMillis(8)),
        ..letter("moved", 98, b"edited".to_vec())
    });
    keep(letters, &put).await;
    let found = list(letters, &DeadLetterQuery { limit: 1000, ..DeadLetterQuery::default() }).await;
    assert_eq!(found.len(), put.len(), "every letter that was put must be listed");
    for (found, put) in found.iter().zip(&put) {
        assert!(found == put, "letter {} must come back as it was put, in its place; found {}", put.id, found.id);
    }
}

async fn keeps_a_letter_once<D: DeadLetters>(letters: &D) {
    let [one, two, three] = ["one", "two", "three"].map(|id| letter(id, 1, id.as_bytes().to_vec()));
    keep(letters, &[one.clone(), two.clone()]).await;
    keep(letters, &[one.clone(), two.clone()]).await;
    keep(letters, &[two.clone(), three.clone(), three.clone()]).await;
    keep(letters, &[]).await;
    let found = list(letters, &DeadLetterQuery::default()).await;
    assert_eq!(ids(&found), ["one", "two", "three"], "a letter that is put again under its id must be there once");
    assert_eq!(found, [one, two, three], "a letter that is put again must not change");
}

async fn lists_the_newest_oldest_first<D: DeadLetters>(letters: &D) {
    for n in 0..6 {
        let mut letter = letter(&format!("l{n}"), n, b"x".to_vec());
        letter.tenant = [Some(tenant("acme")), Some(tenant("zen")), None][n % 3].clone();
        letter.cause = Cause::new([Code::BadJson, Code::StorePermanent][n % 2], "why");
        keep(letters, &[letter]).await;
    }
    let (acme, json) = (Some(tenant("acme")), Some(Code::BadJson));
    let all = usize::MAX;
    for (tenant, code, limit, expected) in [
        (None, None, all, &["l0", "l1", "l2", "l3", "l4", "l5"] as &[_]),
        (None, None, 2, &["l4", "l5"]),
        (None, None, 0, &[]),
        (acme.clone(), None, all, &["l0", "l3"]),
        (acme.clone(), None, 1, &["l3"]),
        (None, json, all, &["l0", "l2", "l4"]),
        (None, json, 2, &["l2", "l4"]),
        (acme, json, all, &["l0"]),
        (Some(self::tenant("nobody")), None, all, &[]),
    ] {
        let query = DeadLetterQuery { tenant, code, limit, ..DeadLetterQuery::default() };
        let found = list(letters, &query).await;
        assert_eq!(ids(&found), expected, "the newest letters that match {query:?} must be listed, oldest first");
    }
}

async fn filters_by_every_field<D: DeadLetters>(letters: &D) {
    let put: Vec<_> = (0..4).map(|n| letter(&format!("l{n}"), n, b"x".to_vec())).collect();
    keep(letters, &put).await;
    let run = run("filter");
    accept(letters.begin_replay(&run, &[put[1].id.clone()]).await, "a replay must begin");
    answer(letters, &run, 1..=1, Some(5)).await;
    let all = DeadLetterQuery { limit: usize::MAX, ..DeadLetterQuery::default() };
    let (since, until) = (Some(UnixMillis(11)), Some(UnixMillis(13)));
    for (query, expected) in [
        (DeadLetterQuery { since, ..all.clone() }, &["l1", "l2", "l3"][..]),
        (DeadLetterQuery { until, ..all.clone() }, &["l0", "l1", "l2"]),
        (DeadLetterQuery { since, until, ..all.clone() }, &["l1", "l2"]),
        (DeadLetterQuery { replayed: Some(true), ..all.clone() }, &["l1"]),
        (DeadLetterQuery { replayed: Some(false), since, ..all.clone() }, &["l2", "l3"]),
        (DeadLetterQuery { ids: vec!["l3".into(), "l0".into(), "none".into()], ..all.clone() }, &["l0", "l3"]),
        (DeadLetterQuery { ids: vec!["l3".into(), "l0".into()], limit: 1, ..all.clone() }, &["l3"]),
        (DeadLetterQuery { ids: vec!["none".into()], ..all }, &[]),
    ] {
        assert_eq!(
            ids(&list(letters, &query).await),
            expected,
            "what matches {query:?} must be listed, and nothing else"
        );
    }
}

async fn gives_every_letter_on_one_page<D: DeadLetters>(letters: &D) {
    let put: Vec<_> = (0..7).map(|n| letter(&format!("l{n}"), n, b"x".to_vec())).collect();
    keep(letters, &put).await;
    for limit in [1, 2, 7, 100] {
        let query = DeadLetterQuery { limit, since: Some(UnixMillis(11)), ..DeadLetterQuery::default() };
        let (mut found, mut after) = (vec![], 0);
        loop {
            let DeadLetterPage { letters: page, next } =
                accept(letters.page(&query, after).await, "a page must be read");
            assert!(page.len() <= limit, "a page must have at most {limit} letters, but has {}", page.len());
            found.extend(page);
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(found, put[1..], "pages of {limit} must bring every letter that matches, once, in order");
    }
    for letter in &put {
        let found = accept(letters.get(&letter.id).await, "a letter must be looked up");
        assert_eq!(found.as_ref(), Some(letter), "a letter must be found by its id");
    }
    assert_eq!(accept(letters.get("none").await, "a letter must be looked up"), None, "an unknown id finds nothing");
}

async fn keeps_the_bytes_as_they_came_beside_an_edit<D: DeadLetters>(letters: &D) {
    let came = letter("one", 1, b"as it came \xff\0".to_vec());
    keep(letters, &[came.clone(), letter("two", 2, b"two".to_vec())]).await;
    for (at, body) in [(50, &b"first try\0"[..]), (60, b"second try")] {
        let answer =
            accept(letters.edit("one", Bytes::from_static(body), UnixMillis(at)).await, "an edit must be kept");
        assert_eq!(answer, EditAnswer::Edited, "a letter that is there must be edited");
        let edit = Some(Edit { at: UnixMillis(at), original: came.body.clone() });
        let expected = DeadLetter { body: Bytes::from_static(body), edit, ..came.clone() };
        let found = accept(letters.get("one").await, "a letter must be looked up");
        assert_eq!(found, Some(expected), "an edit must change the body, and keep the bytes as they came");
    }
    let answer = accept(letters.edit("none", Bytes::new(), UnixMillis(1)).await, "an edit must be answered");
    assert_eq!(answer, EditAnswer::Missing, "a letter that is not there cannot be edited");
    keep(letters, std::slice::from_ref(&came)).await;
    let found = list(letters, &DeadLetterQuery::default()).await;
    assert_eq!(
        (&*found[0].body, &*found[1].body),
        (&b"second try"[..], &b"two"[..]),
        "a letter put again stays edited"
    );
}

async fn purges_what_matches_and_nothing_else<D: DeadLetters>(letters: &D) {
    for n in 0..6 {
        let mut letter = letter(&format!("l{n}"), n, b"x".to_vec());
        letter.tenant = [Some(tenant("acme")), Some(tenant("zen")), None][n % 3].clone();
        keep(letters, &[letter]).await;
    }
    let purge = async |query: &DeadLetterQuery| accept(letters.purge(query).await, "letters must be purged");
    let of_acme =
        DeadLetterQuery { tenant: Some(tenant("acme")), until: Some(UnixMillis(13)), ..DeadLetterQuery::default() };
    assert_eq!(purge(&of_acme).await, 1, "a purge must say how many it took");
    assert_eq!(purge(&of_acme).await, 0, "what is gone cannot be purged again");
    let left = list(letters, &DeadLetterQuery::default()).await;
    assert_eq!(ids(&left), ["l1", "l2", "l3", "l4", "l5"], "a purge must take what matches, and nothing else");
    let newest = DeadLetterQuery { limit: 1, ..DeadLetterQuery::default() };
    assert_eq!(purge(&newest).await, 5, "a purge must take all that match, whatever the limit");
    assert!(list(letters, &DeadLetterQuery::default()).await.is_empty(), "a purge of all must leave none");
}

async fn replays_each_letter_in_one_run_at_a_time<D: DeadLetters>(letters: &D) {
    let put: Vec<_> = (0..6).map(|n| letter(&format!("l{n}"), n, b"x".to_vec())).collect();
    keep(letters, &put).await;
    let (one, two, three) = (run("one"), run("two"), run("three"));
    let begin = async |run: &StreamId, ids: &[&str]| {
        let ids: Vec<Arc<str>> = ids.iter().map(|id| (*id).into()).collect();
        accept(letters.begin_replay(run, &ids).await, "a replay must begin")
    };
    assert_eq!(
        begin(&one, &["l3", "l0", "none", "l2", "l2"]).await,
        3,
        "a replay must count the letters that are there"
    );
    assert_eq!(begin(&two, &["l0", "l5"]).await, 1, "a letter must be in one replay at a time");
    assert_eq!(pending(letters, &one, 0).await, ["1 l0", "2 l2", "3 l3"], "positions must follow the order of keeping");
    assert_eq!(pending(letters, &one, 1).await, ["2 l2", "3 l3"], "a replay must go on behind a position");
    assert_eq!(pending(letters, &two, 0).await, ["1 l5"], "replays must not mix");
    let mut runs = accept(letters.replays().await, "the replays must be listed");
    runs.sort();
    assert_eq!(runs, [one.clone(), two.clone()], "replays with letters to answer must be listed");

    answer(letters, &one, 1..=1, Some(70)).await;
    answer(letters, &one, 1..=1, Some(71)).await;
    answer(letters, &one, 2..=2, None).await;
    assert_eq!(pending(letters, &one, 0).await, ["3 l3"], "a letter with an answer must not be replayed again");
    let back = DeadLetterQuery { replayed: Some(true), ..DeadLetterQuery::default() };
    let back = list(letters, &back).await;
    let came = DeadLetter { replayed_at: Some(UnixMillis(70)), ..put[0].clone() };
    assert_eq!(
        back,
        [came],
        "a letter that came back must say when, for good, and one that was refused stays as it was"
    );
    assert_eq!(begin(&three, &["l2"]).await, 1, "a letter that was refused may be replayed again");
    for run in [&one, &two, &three] {
        answer(letters, run, 1..=u64::MAX, Some(80)).await;
    }
    assert!(
        accept(letters.replays().await, "the replays must be listed").is_empty(),
        "a replay must end with its letters"
    );
}

async fn edits_nothing_that_is_or_was_replayed<D: DeadLetters>(letters: &D) {
    keep(letters, &[letter("one", 1, b"x".to_vec())]).await;
    let run = run("edit");
    accept(letters.begin_replay(&run, &["one".into()]).await, "a replay must begin");
    let edit =
        async || accept(letters.edit("one", Bytes::from_static(b"y"), UnixMillis(1)).await, "an edit must be answered");
    assert_eq!(edit().await, EditAnswer::InReplay, "a letter in a replay must not change");
    answer(letters, &run, 1..=1, Some(2)).await;
    assert_eq!(edit().await, EditAnswer::Replayed, "a letter that came back must not change");
    let found = list(letters, &DeadLetterQuery::default()).await;
    assert_eq!((&*found[0].body, &found[0].edit), (&b"x"[..], &None), "an edit that is refused must change nothing");
}

fn accept<T>(answer: Result<T, StorageError>, what: &str) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{what}, but: {error}"),
    }
}

async fn answer<D: DeadLetters>(
    letters: &D,
    run: &StreamId,
    positions: std::ops::RangeInclusive<u64>,
    at: Option<i64>,
) {
    let answers = [ReplayAnswer { positions, replayed_at: at.map(UnixMillis) }];
    accept(letters.replayed(run, &answers).await, "letters of a replay must be answered");
}

async fn pending<D: DeadLetters>(letters: &D, run: &StreamId, after: u64) -> Vec<String> {
    let found = accept(letters.replaying(run, after).await, "the letters of a replay must be read");
    found.iter().map(|(position, letter)| format!("{position} {}", letter.id)).collect()
}

#[expect(clippy::expect_used, reason = "the suite names its replays itself")]
fn run(name: &str) -> StreamId {
    StreamId::new(name).expect("a valid stream id")
}

fn letter(id: &str, n: usize, body: Vec<u8>) -> DeadLetter {
    let at = i64::try_from(n).unwrap_or(i64::MAX);
    DeadLetter {
        id: id.into(),
        kind: DeadLetterKind::Event,
        tenant: Some(tenant("acme")),
        source: Some(Arc::from("tcp:127.0.0.1:7000")),
        cause: Cause::new(Code::StorePermanent, format!("why {n}: \"quoted\"\n\u{e9}")),
        attempts: 3,
        first_at: UnixMillis(at),
        last_at: UnixMillis(at + 10),
        batch: Some((batch_id("acme", 7), 12)),
        original_bytes: body.len() as u64,
        time: n.is_multiple_of(2).then_some(UnixMillis(at - 1)),
        body: Bytes::from(body),
        edit: None,
        replayed_at: None,
    }
}

async fn keep<D: DeadLetters>(letters: &D, put: &[DeadLetter]) {
    if let Err(error) = letters.put(put).await {
        panic!("{} letters must be kept, but: {error}", put.len());
    }
}

async fn list<D: DeadLetters>(letters: &D, query: &DeadLetterQuery) -> Vec<DeadLetter> {
    match letters.list(query).await {
        Ok(found) => found,
        Err(error) => panic!("letters must be listed for {query:?}, but: {error}"),
    }
}

fn ids(letters: &[DeadLetter]) -> Vec<&str> {
    letters.iter().map(|letter| &*letter.id).collect()
}
