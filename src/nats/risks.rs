use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, RetentionPolicy, StorageType};

/// By which settings of a stream messages may be lost that its publishers were told are safe.
pub(crate) fn risks(stream: &StreamConfig) -> Vec<String> {
    let mut all = vec![];
    if stream.storage == StorageType::Memory {
        all.push("it is kept in memory: a server that ends loses it".to_owned());
    } else if stream.num_replicas < 2 {
        all.push(
            "it has one replica, and the server writes to its disk every two minutes unless sync_interval is set to always: a machine \
             that fails may lose what was acknowledged to publishers"
                .to_owned(),
        );
    }
    let is_limited = stream.max_messages > 0 || stream.max_bytes > 0 || stream.max_messages_per_subject > 0;
    if stream.discard == DiscardPolicy::Old && is_limited {
        all.push("at its limits it discards its oldest messages, read or not".to_owned());
    }
    if !stream.max_age.is_zero() {
        let age = humantime::format_duration(stream.max_age);
        all.push(format!("it deletes messages after {age} (max_age), read or not"));
    }
    if stream.no_ack {
        all.push("it acknowledges nothing to its publishers (no_ack)".to_owned());
    }
    if stream.retention == RetentionPolicy::Interest {
        all.push("it keeps no message that no consumer is there for (interest): delete no consumer".to_owned());
    }
    all.into_iter().map(|risk| format!("the stream {} may lose messages: {risk}", stream.name)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_may_lose_messages_is_told_and_nothing_is_where_nothing_may() {
        let safe = StreamConfig { name: "s".into(), num_replicas: 3, ..StreamConfig::default() };
        assert_eq!(risks(&safe), Vec::<String>::new());
        for (config, says) in [
            (StreamConfig { storage: StorageType::Memory, ..safe.clone() }, "in memory"),
            (StreamConfig { num_replicas: 1, ..safe.clone() }, "sync_interval"),
            (StreamConfig { max_messages: 5, ..safe.clone() }, "oldest"),
            (StreamConfig { max_age: Duration::from_secs(60), ..safe.clone() }, "after 1m"),
            (StreamConfig { no_ack: true, ..safe.clone() }, "no_ack"),
            (StreamConfig { retention: RetentionPolicy::Interest, ..safe.clone() }, "interest"),
        ] {
            let told = risks(&config);
            assert!(told.len() == 1 && told[0].contains(says), "{told:?}");
        }
    }
}
