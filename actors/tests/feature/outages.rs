//! A source that brings nothing in says so: once for each reason in the log and the report, and for as long as it lasts to whoever asks.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{Intake, Lost, Policy, Source, SupervisorEvent, What};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::rig::{Rig, millis, pass, secs, until, virtual_time};

enum Say {
    Fails(&'static str),
    InPart(&'static str),
    Works,
    Lost(Lost),
    End(Result<(), String>),
}

/// Says what it is told to say.
struct Told(UnboundedReceiver<Say>);

impl Source for Told {
    fn name(&self) -> &'static str {
        "bus"
    }

    fn run(mut self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            intake.begins("there is nobody yet");
            while let Some(say) = self.0.recv().await {
                match say {
                    Say::Fails(why) => intake.fails("bus", why, Some(secs(3))),
                    Say::InPart(why) => intake.fails_in_part("bus", why, None),
                    Say::Works => intake.works("bus"),
                    Say::Lost(lost) => intake.lost("bus", lost, "they were too many"),
                    Say::End(end) => return end,
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}

fn of_sources(rig: &Rig) -> Vec<SupervisorEvent> {
    let all = rig.system.log().last(100);
    all.iter().filter(|event| event.what.as_str().starts_with("source_")).map(|event| (**event).clone()).collect()
}

#[test]
fn an_outage_is_told_once_for_each_reason_and_stands_until_it_is_over() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let (say, told) = unbounded_channel();
        let source = rig.system.add_source(Told(told)).await.unwrap();
        until("it begins", || source.outage().is_some()).await;
        assert_eq!(source.outage().unwrap().why, "there is nobody yet");
        assert_eq!(of_sources(&rig), [], "that it has not found what it reads yet is no entry");
        let is_up = || rig.system.outages().iter().all(|(_, outage)| outage.is_none());
        assert!(!is_up());

        for why in ["gone", "gone", "refused", "refused"] {
            say.send(Say::Fails(why)).ok().unwrap();
            pass(secs(1)).await;
        }
        let log = of_sources(&rig);
        let whys: Vec<_> = log.iter().map(|event| (event.what, &*event.cause.as_ref().unwrap().detail)).collect();
        assert_eq!(whys, [(What::SourceFails, "gone"), (What::SourceFails, "refused")]);
        let outage = source.outage().unwrap();
        assert_eq!((&*outage.why, Some(outage.since), outage.is_partial), ("refused", log[1].since, false));
        assert_eq!(log[0].since, log[1].since, "it is one outage");
        assert_eq!(outage.next_attempt_at.unwrap().0 - log[1].at.0, 4_000, "the last attempt counts");
        assert!(log.iter().all(|event| event.source.as_deref() == Some("bus") && event.next_attempt_at.is_some()));
        let report = rig.system.report();
        assert!(report.entries.iter().any(|entry| &*entry.sample == "source bus: refused"), "{report:?}");

        say.send(Say::Works).ok().unwrap();
        say.send(Say::Works).ok().unwrap();
        until("it works", || source.outage().is_none()).await;
        pass(millis(1)).await;
        let works: Vec<_> = of_sources(&rig).split_off(2);
        assert_eq!((works.len(), works[0].what, works[0].since), (1, What::SourceWorks, log[0].since));
        assert!(is_up());
        rig.drained().await;
    });
}

#[test]
fn a_part_that_does_not_come_and_what_was_lost_are_told_and_one_that_failed_for_good_is_down() {
    virtual_time(async {
        let rig = Rig::new(Policy::default());
        let (say, told) = unbounded_channel();
        let source = rig.system.add_source(Told(told)).await.unwrap();
        say.send(Say::InPart("one of two")).ok().unwrap();
        until("a part fails", || source.outage().is_some_and(|outage| outage.is_partial)).await;
        say.send(Say::Lost(Lost::Bytes(7))).ok().unwrap();
        say.send(Say::Lost(Lost::Datagrams(2))).ok().unwrap();
        until("it is told", || of_sources(&rig).len() == 3).await;
        let lost = of_sources(&rig).pop().unwrap();
        assert_eq!((lost.what, &*lost.cause.unwrap().detail), (What::SourceLost, "2 datagrams: they were too many"));
        let counters = rig.source("bus");
        assert_eq!((counters.lost_bytes, counters.lost_datagrams), (7, 2));
        say.send(Say::End(Err("broken".to_owned()))).ok().unwrap();
        assert_eq!(source.ended().await, Err("broken".to_owned()));
        let outages = rig.system.outages();
        assert_eq!((outages.len(), &*outages[0].1.as_ref().unwrap().why), (1, "broken"));
        // One that has brought all that it was to is neither up nor down.
        let (say, told) = unbounded_channel();
        let other = rig.system.add_source(Told(told)).await.unwrap();
        assert_eq!(rig.system.outages().len(), 1, "they have one name");
        say.send(Say::End(Ok(()))).ok().unwrap();
        other.ended().await.unwrap();
        assert_eq!(other.outage().map(|outage| outage.why), None);
        rig.drained().await;
    });
}
