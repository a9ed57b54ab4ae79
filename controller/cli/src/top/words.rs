//! Numbers for people who have no time: three digits and a unit.

/// "0", "0.25", "12.3", "999", "1.20 k", "12.3 M", "9.60 G".
pub(super) fn short(value: f64) -> String {
    const UNITS: [&str; 6] = ["", " k", " M", " G", " T", " P"];
    let mut value = if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    };
    let mut unit = 0;
    // What would be rounded to 1000 is the next unit's 1.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if v == 0.0 || v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let name = UNITS.get(unit).copied().unwrap_or_default();
    format!("{value:.digits$}{name}")
}

/// A share in percent; "-" of nothing.
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        // 100 % is all of them.
        Some(share) if share < 1.0 => format!("{:.1} %", (share * 1000.0).floor() / 10.0),
        Some(_) => "100 %".to_owned(),
        None => "-".to_owned(),
    }
}

/// A time: "50 µs", "2 ms", "10 s".
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// A bucket: how long those in it took at most.
pub(super) fn at_most(end: Option<u64>, last: u64) -> String {
    match end {
        Some(us) => format!("≤ {}", micros(us)),
        None => format!("> {}", micros(last)),
    }
}

/// The stages of an install.
pub(super) fn stage(name: &str) -> &str {
    match name {
        "queued" => "in the queue",
        "batched" => "until in a batch",
        "on_wire" => "on the wire",
        "total" => "from the decision",
        "first_packet" => "from the first packet",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (9.99, "9.99"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (12_345.0, "12.3 k"),
            (9.6e9, "9.60 G"),
            (1e30, "1000000000000000 P"),
            (f64::NAN, "0"),
            (-1.0, "0"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn shares_are_rounded_down() {
        assert_eq!(percent(Some(0.9999)), "99.9 %");
        assert_eq!(percent(Some(1.0)), "100 %");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn times() {
        assert_eq!(at_most(Some(50), 0), "≤ 50 µs");
        assert_eq!(at_most(Some(2_000), 0), "≤ 2 ms");
        assert_eq!(at_most(None, 10_000_000), "> 10 s");
    }
}
