use crate::TenantId;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn shape(bad: &str) -> Shape {
    Shape { tenants: 100, zipf: Zipf::default(), bytes: 200, bad: bad.parse().unwrap(), seed: 1 }
}

fn lines(shape: &Shape, count: usize) -> Vec<(Sample, Vec<u8>)> {
    let mut events = SampleEvents::new(shape);
    (0..count)
        .map(|_| {
            let mut line = Vec::new();
            let sample = events.write_next(&mut line);
            assert_eq!(line.pop(), Some(b'\n'));
            (sample, line)
        })
        .collect()
}

/// Whose event a careful reader says this is.
fn tenant_of(line: &[u8]) -> Option<TenantId> {
    let value: Value = serde_json::from_slice(line).ok()?;
    value.get("tenant")?.as_str()?.parse().ok()
}

proptest! {
    #[test]
    fn every_good_line_is_one_json_object_of_the_wanted_length_and_tenant(
        tenants in 1..200_000_u32,
        exponent in prop::sample::select(vec!["0", "1.1"]),
        bytes in 100..2_000_usize,
        seed: u64,
    ) {
        let shape = Shape { tenants, zipf: exponent.parse().unwrap(), bytes, bad: Share::default(), seed };
        let events = SampleEvents::new(&shape);
        for (sample, line) in lines(&shape, 50) {
            let Sample::Good(tenant) = sample else { panic!("{sample:?}") };
            prop_assert!(tenant < tenants);
            prop_assert_eq!(line.len(), bytes);
            prop_assert!(!line.contains(&b'\n'));
            let mut name = Vec::new();
            events.write_name(tenant, &mut name);
            prop_assert_eq!(tenant_of(&line), TenantId::new(str::from_utf8(&name).unwrap()).ok());
        }
    }
}

#[test]
fn every_kind_of_bad_line_is_refused_and_none_holds_a_newline() {
    let all = lines(&shape("100"), 16);
    for (index, (sample, line)) in all.iter().enumerate() {
        assert_eq!(*sample, Sample::Bad(Bad::ALL[index % 8]), "the kinds take turns");
        assert_eq!(tenant_of(line), None, "{sample:?}");
        assert!(!line.contains(&b'\n'), "{sample:?}");
    }
}

#[test]
fn each_bad_line_is_broken_in_its_own_way_only() {
    for (sample, line) in lines(&shape("100"), 8) {
        let Sample::Bad(bad) = sample else { panic!("{sample:?}") };
        let text = std::str::from_utf8(&line);
        assert_eq!(text.is_err(), bad == Bad::Utf8);
        assert_eq!(line.is_empty(), bad == Bad::EmptyLine);
        assert_eq!(line.contains(&0), bad == Bad::Nul);
        let json = serde_json::from_slice::<Value>(&line);
        let valid = matches!(bad, Bad::NoTenant | Bad::TenantNotAString | Bad::TenantId);
        assert_eq!(json.is_ok(), valid, "{bad:?}");
        if bad == Bad::Deep {
            assert!(json.unwrap_err().to_string().contains("recursion"), "deep, but well formed");
        }
    }
}

#[test]
fn the_share_of_bad_lines_is_met_and_counted() {
    let mut events = SampleEvents::new(&shape("2.5"));
    let mut bytes = Vec::new();
    let bad = (0..1_000).filter(|_| matches!(events.write_next(&mut bytes), Sample::Bad(_))).count();
    assert_eq!(bad, 25);
    assert_eq!(events.counts(), Counts { good: 975, bad: 25 });
}

#[test]
fn a_seed_decides_every_byte() {
    assert_eq!(lines(&shape("10"), 500), lines(&shape("10"), 500));
    assert_ne!(lines(&shape("10"), 500), lines(&Shape { seed: 2, ..shape("10") }, 500));
}

#[test]
fn a_length_too_short_for_the_fields_gives_the_shortest_whole_event() {
    for (_, line) in lines(&Shape { bytes: 10, ..shape("0") }, 20) {
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["line"], "");
    }
}

#[test]
fn an_event_looks_as_documented() {
    let (_, line) = lines(&shape("0"), 1).remove(0);
    let line = String::from_utf8(line).unwrap();
    let (head, _) = line.split_at(line.find("\"level\"").unwrap());
    assert!(head.starts_with("{\"tenant\":\"t00"), "{head}");
    assert!(head.ends_with("\",\"ts\":1732233600000,"), "{head}");
}
