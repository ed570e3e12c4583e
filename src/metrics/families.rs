use std::fmt::Result;

use headworks_actors::Distribution;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

#[cfg(feature = "otlp")]
use super::otlp;

/// Whoever is told, in the words of this module. Names go without their unit and without `_total`.
pub(super) enum Families<'e> {
    Text(DescriptorEncoder<'e>),
    #[cfg(feature = "otlp")]
    Otlp(otlp::Sink),
}

/// What a value is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum In {
    /// No unit: things are counted.
    Things,
    Bytes,
    Seconds,
}

impl In {
    fn unit(self) -> Option<&'static Unit> {
        match self {
            Self::Things => None,
            Self::Bytes => Some(&Unit::Bytes),
            Self::Seconds => Some(&Unit::Seconds),
        }
    }
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// What does not change as long as the process lives.
    Info,
    Histogram,
}

impl Kind {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Info => MetricType::Info,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

/// One value of a family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'v> {
    Whole(u64),
    Broken(f64),
    Spread(In, &'v Distribution),
    /// That there is one: the labels say it all.
    There,
}

type Labels<'l> = &'l [(&'l str, &'l str)];

/// A family that is being told.
enum Family<'f> {
    Text(MetricEncoder<'f>, Kind),
    #[cfg(feature = "otlp")]
    Otlp(&'f mut otlp::Sink),
}

impl Family<'_> {
    fn value(&mut self, labels: Labels<'_>, value: Value<'_>) -> Result {
        match self {
            Self::Text(metric, Kind::Info) => metric.encode_info(&labels),
            Self::Text(metric, kind) if labels.is_empty() => encode(metric, *kind, value),
            Self::Text(metric, kind) => encode(&mut metric.encode_family(&labels)?, *kind, value),
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => {
                sink.value(labels, value);
                Ok(())
            }
        }
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value<'_>) -> Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => metric.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        (Kind::Counter, Value::Broken(value)) => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        (_, Value::Whole(value)) => metric.encode_gauge(&value),
        (_, Value::Broken(value)) => metric.encode_gauge(&value),
        (_, Value::Spread(unit, values)) => {
            let bounds = values.bounds.iter().map(|bound| told(unit, *bound)).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(values.counts.iter().copied()).collect();
            metric.encode_histogram::<NoLabelSet>(told(unit, values.sum), values.count(), &buckets, None)
        }
        (_, Value::There) => metric.encode_gauge(&1),
    }
}

/// A value of a distribution: times are kept in nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 ns, 104 days, of a sum")]
pub(super) fn told(unit: In, value: u64) -> f64 {
    if unit == In::Seconds { value as f64 / 1e9 } else { value as f64 }
}

impl<'e> Families<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self::Text(encoder)
    }

    fn family<'f>(
        &'f mut self,
        name: &'f str,
        unit: In,
        help: &str,
        kind: Kind,
    ) -> std::result::Result<Family<'f>, std::fmt::Error> {
        match self {
            Self::Text(text) => {
                Ok(Family::Text(text.encode_descriptor(name, help, unit.unit(), kind.metric_type())?, kind))
            }
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => {
                sink.family(name, unit, help, kind);
                Ok(Family::Otlp(sink))
            }
        }
    }

    pub(super) fn counter(&mut self, name: &str, unit: In, help: &str, value: u64) -> Result {
        self.family(name, unit, help, Kind::Counter)?.value(&[], Value::Whole(value))
    }

    /// One for each value of a label.
    pub(super) fn counters<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        each: impl IntoIterator<Item = (L, u64)>,
    ) -> Result {
        let mut family = self.family(name, In::Things, help, Kind::Counter)?;
        each.into_iter().try_for_each(|(of, value)| family.value(&[(label, of.as_ref())], Value::Whole(value)))
    }

    /// Of seconds, and not only whole ones.
    pub(super) fn seconds_counters<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        each: impl IntoIterator<Item = (L, f64)>,
    ) -> Result {
        let mut family = self.family(name, In::Seconds, help, Kind::Counter)?;
        each.into_iter().try_for_each(|(of, value)| family.value(&[(label, of.as_ref())], Value::Broken(value)))
    }

    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, value: f64) -> Result {
        self.family(name, In::Seconds, help, Kind::Counter)?.value(&[], Value::Broken(value))
    }

    pub(super) fn gauge(&mut self, name: &str, unit: In, help: &str, value: u64) -> Result {
        self.family(name, unit, help, Kind::Gauge)?.value(&[], Value::Whole(value))
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> Result {
        self.family(name, In::Seconds, help, Kind::Gauge)?.value(&[], Value::Broken(value))
    }

    /// One for each value of a label.
    pub(super) fn gauges<L: AsRef<str>>(
        &mut self,
        name: &str,
        unit: In,
        help: &str,
        label: &str,
        each: impl IntoIterator<Item = (L, u64)>,
    ) -> Result {
        let mut family = self.family(name, unit, help, Kind::Gauge)?;
        each.into_iter().try_for_each(|(of, value)| family.value(&[(label, of.as_ref())], Value::Whole(value)))
    }

    /// Of things; one for each pair of values of two labels.
    pub(super) fn gauges_by_two<'d>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        each: impl IntoIterator<Item = ([&'d str; 2], u64)>,
    ) -> Result {
        self.by_two(name, help, Kind::Gauge, labels, each)
    }

    /// The same.
    pub(super) fn counters_by_two<'d>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        each: impl IntoIterator<Item = ([&'d str; 2], u64)>,
    ) -> Result {
        self.by_two(name, help, Kind::Counter, labels, each)
    }

    fn by_two<'d>(
        &mut self,
        name: &str,
        help: &str,
        kind: Kind,
        labels: [&str; 2],
        each: impl IntoIterator<Item = ([&'d str; 2], u64)>,
    ) -> Result {
        let mut family = self.family(name, In::Things, help, kind)?;
        each.into_iter()
            .try_for_each(|(of, value)| family.value(&[(labels[0], of[0]), (labels[1], of[1])], Value::Whole(value)))
    }

    /// What does not change as long as the process lives.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result {
        self.family(name, In::Things, help, Kind::Info)?.value(labels, Value::There)
    }

    /// Of things, or of times, which are told in seconds.
    pub(super) fn histogram(&mut self, name: &str, unit: In, help: &str, values: &Distribution) -> Result {
        self.family(name, unit, help, Kind::Histogram)?.value(&[], Value::Spread(unit, values))
    }

    /// Of times; one for each store and outcome.
    pub(super) fn histograms<'d>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        each: impl IntoIterator<Item = ([&'d str; 2], &'d Distribution)>,
    ) -> Result {
        let mut family = self.family(name, In::Seconds, help, Kind::Histogram)?;
        each.into_iter().try_for_each(|(of, values)| {
            family.value(&[(labels[0], of[0]), (labels[1], of[1])], Value::Spread(In::Seconds, values))
        })
    }
}
