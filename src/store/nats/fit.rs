//! Whether a stream is one for this store. Pure.

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType};

use super::NatsStoreOptions;
use super::subject::Template;
use crate::nats::risks;
use crate::units::bytes::display as size;

/// The headers of a message take less.
const HEADERS: usize = 1024;

/// The stream as it is made.
pub(super) fn wanted(options: &NatsStoreOptions, template: &Template) -> StreamConfig {
    StreamConfig {
        name: options.stream.clone(),
        subjects: vec![template.wildcard()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // Should somebody set limits: what was acknowledged is not lost by them.
        discard: DiscardPolicy::New,
        num_replicas: options.replicas,
        ..StreamConfig::default()
    }
}

/// Why the stream cannot be used, if it cannot.
pub(super) fn unfit(stream: &StreamConfig, template: &Template) -> Option<String> {
    let (name, wildcard) = (&stream.name, template.wildcard());
    let why = if stream.sealed {
        "is sealed, and takes nothing more: choose another one".to_owned()
    } else if stream.mirror.is_some() {
        "mirrors another one: publish to that".to_owned()
    } else if !stream.subjects.iter().any(|subject| template.is_taken_by(subject)) {
        let subjects = stream.subjects.join(", ");
        format!("takes the subjects {subjects}, and not {wildcard}: add that to the stream, or set subject")
    } else if stream.subject_transform.is_some() {
        "changes the subjects of its messages (subject_transform), by which batches are found again: choose another one"
            .to_owned()
    } else if stream.no_ack {
        "acknowledges nothing (no_ack), so that nobody could tell what is stored: set that off".to_owned()
    } else if stream.retention != RetentionPolicy::Limits {
        "forgets messages that were consumed, so that a batch that comes again could be there twice: set its retention to limits, and \
         for a work queue source another stream from it"
            .to_owned()
    } else if stream.discard_new_per_subject && stream.max_messages_per_subject == 1 {
        "takes one message a subject (discard_new_per_subject), and a rollback needs a second one: raise max_msgs_per_subject".to_owned()
    } else {
        return None;
    };
    Some(format!("the stream {name} {why}"))
}

/// What may lose batches, or gets in the way.
pub(super) fn warnings(stream: &StreamConfig, max_payload: usize, options: &NatsStoreOptions) -> Vec<String> {
    let mut all = risks(stream);
    let name = &stream.name;
    if stream.deny_purge {
        all.push(format!(
            "the stream {name} denies purges (deny_purge): a batch that is rolled back stays there, before a message that takes it back, \
             and is told as a failed compensation"
        ));
    }
    if let Some(largest) = options.largest_batch
        && let takes = takes(stream, max_payload)
        && largest + HEADERS > takes
    {
        let (largest, takes) = (size(largest), size(takes));
        all.push(format!(
            "a batch may have {largest} (window.max_bytes), and the stream {name} takes {takes} (the server's max_payload, the stream's \
             max_msg_size), headers included: each that is larger is halved, at the cost of attempts; lower the one or raise the others"
        ));
    }
    all
}

/// The largest message.
fn takes(stream: &StreamConfig, max_payload: usize) -> usize {
    usize::try_from(stream.max_message_size)
        .ok()
        .filter(|most| *most > 0)
        .map_or(max_payload, |most| most.min(max_payload))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stream_that_is_made_is_fit_and_one_that_could_lose_or_double_a_batch_is_not() {
        let (options, template) = (NatsStoreOptions::at("nats://x", "s"), Template::new("a.{tenant}.{batch}").unwrap());
        let made = wanted(&options, &template);
        assert_eq!(unfit(&made, &template), None);
        for (config, says) in [
            (StreamConfig { sealed: true, ..made.clone() }, "sealed"),
            (
                StreamConfig { subjects: vec!["b.>".into(), "a.*".into()], ..made.clone() },
                "takes the subjects b.>, a.*, and not a.*.*",
            ),
            (StreamConfig { no_ack: true, ..made.clone() }, "no_ack"),
            (StreamConfig { retention: RetentionPolicy::WorkQueue, ..made.clone() }, "set its retention to limits"),
            (StreamConfig { retention: RetentionPolicy::Interest, ..made.clone() }, "set its retention to limits"),
            (
                StreamConfig { discard_new_per_subject: true, max_messages_per_subject: 1, ..made.clone() },
                "a second one",
            ),
        ] {
            let told = unfit(&config, &template).unwrap_or_default();
            assert!(told.starts_with("the stream s ") && told.contains(says), "{told}");
        }
    }

    #[test]
    fn what_may_lose_batches_or_is_too_small_for_them_is_told() {
        let mut options = NatsStoreOptions::at("nats://x", "s");
        (options.replicas, options.largest_batch) = (3, Some(1 << 20));
        let made = wanted(&options, &Template::new("a.{tenant}.{batch}").unwrap());
        assert_eq!(warnings(&made, 8 << 20, &options), Vec::<String>::new());
        for (config, max_payload, says) in [
            (made.clone(), 1 << 20, "a batch may have 1MiB (window.max_bytes), and the stream s takes 1MiB"),
            (StreamConfig { max_message_size: 4096, ..made.clone() }, 8 << 20, "takes 4KiB"),
            (StreamConfig { deny_purge: true, ..made.clone() }, 8 << 20, "denies purges"),
            (StreamConfig { max_age: Duration::from_secs(60), ..made.clone() }, 8 << 20, "after 1m"),
        ] {
            let told = warnings(&config, max_payload, &options);
            assert!(told.len() == 1 && told[0].contains(says), "{told:?}");
        }
    }
}
