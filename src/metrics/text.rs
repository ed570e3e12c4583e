/// How the numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a scraper wants that sends this `Accept`: OpenMetrics, where it says that it knows it and would not rather have text.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let weight = |kind: &str| {
            let ranges = accept.split(',').map(str::trim);
            let range = ranges.filter(|range| range.split(';').next().is_some_and(|name| name.trim() == kind));
            let weight = |range: &str| {
                let weight = range.split(';').find_map(|word| word.trim().strip_prefix("q=")?.trim().parse().ok());
                weight.unwrap_or(1.0_f32)
            };
            range.map(weight).fold(0.0_f32, f32::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// The same numbers in `format`. `told` is OpenMetrics, in which a family goes without the ending of its samples and has a unit and
/// an end.
pub(super) fn in_format(told: String, format: Format) -> String {
    if format == Format::OpenMetrics {
        return told;
    }
    let mut text = String::with_capacity(told.len());
    let mut help = None;
    for line in told.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(_), said) => help = said,
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (ending, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                for (what, said) in [("HELP", help.take().unwrap_or_default()), ("TYPE", kind)] {
                    text.extend(["# ", what, " ", name, ending, " ", said, "\n"]);
                }
            }
            // The unit is in the name, and the text has no end of its own.
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_that_ask_for_it_and_text_for_all_others() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("text/plain, application/openmetrics-text; q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("text/html,*/*;q=0.8", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn a_family_has_the_name_of_its_samples_in_the_text_format() {
        let told = "# HELP a_seconds Of a.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
                    # HELP b Of b.\n# TYPE b info\nb_info{c=\"# d\"} 1\n# HELP e Of e.\n# TYPE e gauge\ne 2\n# EOF\n";
        let text = "# HELP a_seconds_total Of a.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                    # HELP b_info Of b.\n# TYPE b_info gauge\nb_info{c=\"# d\"} 1\n# HELP e Of e.\n# TYPE e gauge\ne 2\n";
        assert_eq!(in_format(told.to_owned(), Format::Prometheus), text);
        assert_eq!(in_format(told.to_owned(), Format::OpenMetrics), told);
    }
}
