use std::fmt::Result;

use headworks_actors::Distribution;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// The encoder, in the words of this module. Names go without their unit and without `_total`.
pub(super) struct Families<'e>(DescriptorEncoder<'e>);

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

impl<'e> Families<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    pub(super) fn counter(&mut self, name: &str, unit: In, help: &str, value: u64) -> Result {
        count(&mut self.0.encode_descriptor(name, help, unit.unit(), MetricType::Counter)?, value)
    }

    /// One for each value of a label.
    pub(super) fn counters<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        each: impl IntoIterator<Item = (L, u64)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in each {
            count(&mut family.encode_family(&[(label, of.as_ref())])?, value)?;
        }
        Ok(())
    }

    /// Of seconds, and not only whole ones.
    pub(super) fn seconds_counters<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        each: impl IntoIterator<Item = (L, f64)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (of, value) in each {
            let labels = [(label, of.as_ref())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, value: f64) -> Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    pub(super) fn gauge(&mut self, name: &str, unit: In, help: &str, value: u64) -> Result {
        self.0.encode_descriptor(name, help, unit.unit(), MetricType::Gauge)?.encode_gauge(&value)
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> Result {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&value)
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
        let mut family = self.0.encode_descriptor(name, help, unit.unit(), MetricType::Gauge)?;
        for (of, value) in each {
            family.encode_family(&[(label, of.as_ref())])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// What does not change as long as the process lives.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    /// Of things, or of times, which are told in seconds.
    pub(super) fn histogram(&mut self, name: &str, unit: In, help: &str, values: &Distribution) -> Result {
        spread(&mut self.0.encode_descriptor(name, help, unit.unit(), MetricType::Histogram)?, unit, values)
    }

    /// Of times; one for each store and outcome.
    pub(super) fn histograms<'d>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        each: impl IntoIterator<Item = ([&'d str; 2], &'d Distribution)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (of, values) in each {
            let labels = [(labels[0], of[0]), (labels[1], of[1])];
            spread(&mut family.encode_family(&labels)?, In::Seconds, values)?;
        }
        Ok(())
    }
}

fn count(metric: &mut MetricEncoder<'_>, value: u64) -> Result {
    metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 ns, 104 days, of a sum")]
fn spread(metric: &mut MetricEncoder<'_>, unit: In, values: &Distribution) -> Result {
    let told = |value: u64| if unit == In::Seconds { value as f64 / 1e9 } else { value as f64 };
    let bounds = values.bounds.iter().map(|bound| told(*bound)).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(values.counts.iter().copied()).collect();
    metric.encode_histogram::<NoLabelSet>(told(values.sum), values.count(), &buckets, None)
}
