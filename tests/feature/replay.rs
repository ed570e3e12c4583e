//! Replay for embedders: any dead letters, any decoder, any store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use headworks::source::{REPLAY_RATE, ReplayError, Replayer};
use headworks::{
    Cause, Code, DeadLetter, DeadLetterKind, DeadLetterQuery, DeadLetters, Json, MemoryDeadLetters, MemoryStore,
    System, TenantId, UnixMillis,
};

fn letter(n: usize, tenant: &str, body: &str) -> DeadLetter {
    DeadLetter {
        id: format!("l{n}").into(),
        kind: DeadLetterKind::Event,
        tenant: Some(TenantId::new(tenant).unwrap()),
        source: None,
        cause: Cause::new(Code::StorePermanent, "why"),
        attempts: 1,
        first_at: UnixMillis(1),
        last_at: UnixMillis(2),
        batch: None,
        original_bytes: body.len() as u64,
        time: Some(UnixMillis(n as i64)),
        body: body.as_bytes().to_vec().into(),
        edit: None,
        replayed_at: None,
    }
}

async fn letters(put: &[DeadLetter]) -> MemoryDeadLetters {
    let letters = MemoryDeadLetters::default();
    letters.put(put).await.unwrap();
    letters
}

#[tokio::test]
async fn an_event_comes_back_whole_with_its_tenant_and_time_in_the_order_of_its_tenant() {
    let put: Vec<_> = (0..1_000).map(|n| letter(n, ["acme", "zen"][n % 2], &format!("no json\n{n}\0"))).collect();
    let (letters, store) = (letters(&put).await, MemoryStore::new());
    let system = System::builder().store(store.clone()).dead_letters(letters.clone()).start().unwrap();
    let replayer = Replayer::new(letters.clone(), Json::new());
    let fast = 1_000_000.try_into().unwrap();
    let report = replayer.replay(&system, &DeadLetterQuery::default(), fast).await.unwrap();
    assert_eq!((report.chosen, report.replayed), (1_000, 1_000));
    let again = replayer.replay(&system, &DeadLetterQuery::default(), fast).await.unwrap();
    assert_eq!((again.chosen, again.replayed), (0, 0), "what came back does not come twice");
    let source = &system.sources()[0];
    assert_eq!((&*source.0, source.1.received, source.1.accepted), ("replay", 1_000, 1_000));
    assert!(system.drain(Duration::from_secs(60)).await.complete);
    for (offset, name) in ["acme", "zen"].into_iter().enumerate() {
        let batches = store.batches(&TenantId::new(name).unwrap());
        let events = batches
            .iter()
            .flat_map(|batch| batch.events().map(|event| (event.time, event.body.to_vec())).collect::<Vec<_>>());
        let expected = put.iter().skip(offset).step_by(2).map(|letter| (letter.time, letter.body.to_vec()));
        assert!(events.eq(expected), "{name}");
    }
    assert!(letters.all().iter().all(|letter| letter.replayed_at.is_some()));
}

#[tokio::test]
async fn a_letter_that_is_purged_between_choosing_and_feeding_leaves_a_gap_and_the_rest_comes_back() {
    let put: Vec<_> = (0..9).map(|n| letter(n, "acme", &n.to_string())).collect();
    let (letters, store) = (letters(&put).await, MemoryStore::new());
    let run = "replay-gaps".parse().unwrap();
    let ids: Vec<_> = put.iter().map(|letter| letter.id.clone()).collect();
    letters.begin_replay(&run, &ids).await.unwrap();
    let mut gone = DeadLetterQuery::default();
    gone.ids = [0, 3, 4, 8].map(|n: usize| ids[n].clone()).to_vec();
    letters.purge(&gone).await.unwrap();

    let system = System::builder().store(store.clone()).dead_letters(letters.clone()).start().unwrap();
    let report = Replayer::new(letters.clone(), Json::new()).resume(&system).await.unwrap();
    assert_eq!(report.replayed, 5);
    system.drain(Duration::from_secs(60)).await;
    assert_eq!(store.bodies(&TenantId::new("acme").unwrap()), ["1", "2", "5", "6", "7"].map(|body| body.as_bytes()));
    assert!(letters.replays().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_frame_that_the_decoder_refuses_when_it_is_fed_leaves_the_replay_and_does_not_stop_it() {
    let frame = |n, body| DeadLetter { kind: DeadLetterKind::Frame, tenant: None, ..letter(n, "x", body) };
    let put =
        [frame(0, "bad"), frame(1, "{\"tenant\":\"acme\"}"), frame(2, "{\"tenant\":\"../x\"}"), letter(3, "acme", "e")];
    let (letters, store) = (letters(&put).await, MemoryStore::new());
    let ids: Vec<_> = put.iter().map(|letter| letter.id.clone()).collect();
    letters.begin_replay(&"replay-bad".parse().unwrap(), &ids).await.unwrap();
    let system = System::builder().store(store.clone()).dead_letters(letters.clone()).start().unwrap();
    let report = Replayer::new(letters.clone(), Json::new()).resume(&system).await.unwrap();
    assert_eq!((report.replayed, report.malformed.len()), (2, 2), "{report:?}");
    let back: Vec<_> = letters.all().iter().map(|letter| letter.replayed_at.is_some()).collect();
    assert_eq!(back, [false, true, false, true]);
    assert_eq!(letters.all().len(), 4, "no new letter is made of one that stays");
    system.drain(Duration::from_secs(60)).await;
    assert_eq!(store.totals().values().sum::<u64>(), 2);
}

#[tokio::test]
async fn one_replay_runs_at_a_time_and_one_whose_caller_goes_goes_on() {
    let put: Vec<_> = (0..30).map(|n| letter(n, "acme", "x")).collect();
    let letters = letters(&put).await;
    let system = System::builder().dead_letters(letters.clone()).start().unwrap();
    let replayer = Replayer::new(letters.clone(), Json::new());
    let query = DeadLetterQuery::default();
    {
        // Half of its time is left when its caller goes.
        let slow = 20.try_into().unwrap();
        let mut first = std::pin::pin!(replayer.replay(&system, &query, slow));
        let begun = async {
            while !letters.all().iter().any(|letter| letter.replayed_at.is_some()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut first => panic!("it has 30 letters at 20 a second"),
            () = begun => {}
        }
        let second = replayer.clone().replay(&system, &query, REPLAY_RATE).await;
        assert!(matches!(second, Err(ReplayError::UnderWay)), "{second:?}");
    }
    while !letters.all().iter().all(|letter| letter.replayed_at.is_some()) {
        tokio::task::yield_now().await;
    }
}
