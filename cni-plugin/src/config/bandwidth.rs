//! How fast the container may send and receive: the keys and the capability `bandwidth`.
//!
//! Owns the spellings. Rates are bits a second and bursts are bits, as for the `bandwidth` plugin
//! of the CNI project; *ingress* is what the container receives. They stand in the configuration
//! itself, as for that plugin, in its key `bandwidth`, and in the capability. Where several places
//! limit a direction, the lowest rate holds: none of them lifts what another one limits.

use serde_json::{Map, Value};
use slirp_core::{Rate, Rates};

use super::Header;
use crate::protocol::error::CniError;
use crate::protocol::field;

/// The name of the capability and of the key.
pub(super) const BANDWIDTH: &str = "bandwidth";

/// Keys of that plugin that we cannot act on.
const SUBNETS: [&str; 2] = ["shapedSubnets", "unshapedSubnets"];

/// The limits of all places.
///
/// # Errors
/// For a value that is no number, a rate without a burst and the other way around, and a list of
/// subnets.
pub(super) fn rates(header: &Header) -> Result<Rates, CniError> {
    let capability = header.find("runtimeConfig").and_then(|config| field::of(config, BANDWIDTH));
    let mut rates = limits(&header.object)?;
    for value in [header.find(BANDWIDTH), capability].into_iter().flatten() {
        if field::is_empty(value) {
            continue;
        }
        let object = value
            .as_object()
            .ok_or_else(|| CniError::config(format!("{BANDWIDTH}: {value} is not an object")))?;
        let more = limits(object)?;
        rates.to_guest = lower(rates.to_guest, more.to_guest);
        rates.from_guest = lower(rates.from_guest, more.from_guest);
    }
    Ok(rates)
}

/// The lower rate and the lower burst: what one place limits no other one lifts.
fn lower(one: Option<Rate>, other: Option<Rate>) -> Option<Rate> {
    let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
    Some(Rate {
        bits_per_second: one.bits_per_second.min(other.bits_per_second),
        burst: one.burst.into_iter().chain(other.burst).min(),
    })
}

/// The limits in one object.
fn limits(object: &Map<String, Value>) -> Result<Rates, CniError> {
    for key in SUBNETS {
        if let Some(value) = field::find(object, key).filter(|value| !field::is_empty(value)) {
            let message = format!("{key} is not supported (its value is {value})");
            return Err(CniError::unsupported(message));
        }
    }
    let to_guest = limit(object, "ingressRate", "ingressBurst")?;
    let from_guest = limit(object, "egressRate", "egressBurst")?;
    Ok(Rates::new(to_guest, from_guest))
}

/// One direction; 0 is no limit. The conditions are those of the `bandwidth` plugin.
fn limit(
    object: &Map<String, Value>,
    rate_key: &str,
    burst_key: &str,
) -> Result<Option<Rate>, CniError> {
    match (bits(object, rate_key)?, bits(object, burst_key)?) {
        (0, 0) => Ok(None),
        (0, _) => {
            Err(CniError::config(format!("{burst_key}: if burst is set, rate must also be set")))
        }
        (_, 0) => {
            Err(CniError::config(format!("{rate_key}: if rate is set, burst must also be set")))
        }
        // A bucket of less than one byte would never let one pass.
        (bits_per_second, burst) => {
            Ok(Some(Rate { bits_per_second, burst: Some((burst / 8).max(1)) }))
        }
    }
}

/// A number of bits; 0 if it is absent. Some callers write numbers as texts, or with a fraction of
/// zero.
fn bits(object: &Map<String, Value>, key: &str) -> Result<u64, CniError> {
    let Some(value) = field::find(object, key) else { return Ok(0) };
    let number = match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) if text.is_empty() => Some(0),
        Value::String(text) => {
            text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.ok_or_else(|| CniError::config(format!("{key}: {value} is not a number of bits")))
}

/// The integer that a floating-point number is.
fn whole(number: f64) -> Option<u64> {
    // Below 2^63 each whole number that is a float is an integer of 64 bits.
    let is_whole = number.fract() == 0.0 && (0.0..9_223_372_036_854_775_808.0).contains(&number);
    // Its decimal digits say the same number exactly.
    is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(mut config: Value) -> Result<Rates, CniError> {
        config["name"] = json!("net");
        rates(&Header::parse(config.to_string().as_bytes()).unwrap())
    }

    fn rate(bits_per_second: u64, burst: u64) -> Option<Rate> {
        Some(Rate { bits_per_second, burst: Some(burst) })
    }

    #[test]
    fn every_spelling_of_callers_is_understood() {
        let expected = Rates::new(rate(1_000_000, 100_000), rate(2_000_000, 200_000));
        let camel = json!({
            "ingressRate": 1_000_000, "ingressBurst": 800_000,
            "egressRate": 2_000_000, "egressBurst": 1_600_000,
        });
        // containerd's go-cni has no tags on its struct.
        let untagged = json!({
            "IngressRate": 1_000_000, "IngressBurst": 800_000,
            "EgressRate": 2_000_000, "EgressBurst": 1_600_000,
        });
        let lower = json!({
            "ingressrate": 1_000_000, "ingressburst": 800_000,
            "egressrate": 2_000_000, "egressburst": 1_600_000,
        });
        let texts = json!({
            "ingressRate": "1000000", "ingressBurst": "800000",
            "egressRate": "2000000", "egressBurst": "1600000",
        });
        let floats = json!({
            "ingressRate": 1e6, "ingressBurst": 8e5, "egressRate": 2_000_000.0,
            "egressBurst": 1.6e6,
        });
        for entry in [camel, untagged, lower, texts, floats] {
            for config in [
                json!({ "runtimeConfig": { "bandwidth": entry } }),
                json!({ "RuntimeConfig": { "Bandwidth": entry } }),
                json!({ "bandwidth": entry }),
                entry.clone(),
            ] {
                assert_eq!(read(config.clone()).unwrap(), expected, "{config}");
            }
        }
    }

    #[test]
    fn kubernetes_burst_is_some_268_million_bytes() {
        let pod = json!({ "ingressRate": 1_000_000, "ingressBurst": i32::MAX });
        let rates = read(json!({ "runtimeConfig": { "bandwidth": pod } })).unwrap();
        assert_eq!(rates, Rates::new(rate(1_000_000, 268_435_455), None));
    }

    #[test]
    fn zero_and_nothing_are_no_limit() {
        for entry in [
            json!({}),
            json!(null),
            json!({ "ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0 }),
            json!({ "IngressRate": 0.0, "EgressRate": "0", "egressBurst": "" }),
            json!({ "ingressRate": null, "shapedSubnets": [], "unshapedSubnets": null }),
        ] {
            let rates = read(json!({ "runtimeConfig": { "bandwidth": entry } })).unwrap();
            assert_eq!(rates, Rates::default(), "{entry}");
        }
    }

    #[test]
    fn lowest_rate_and_burst_of_all_places_hold_in_each_direction() {
        let config = json!({
            "ingressRate": 5000, "ingressBurst": 80,
            "bandwidth": { "ingressRate": 3000, "ingressBurst": 800 },
            "runtimeConfig": { "bandwidth": {
                "ingressRate": 4000, "ingressBurst": 8, "egressRate": 10, "egressBurst": 1,
            } },
        });
        assert_eq!(read(config).unwrap(), Rates::new(rate(3000, 1), rate(10, 1)));
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_key() {
        for (entry, code, message) in [
            (json!({ "ingressRate": 1 }), 7, "ingressRate: if rate is set, burst must also be set"),
            (
                json!({ "egressRate": 1, "egressBurst": 0 }),
                7,
                "egressRate: if rate is set, burst must also be set",
            ),
            (json!({ "egressBurst": 1 }), 7, "egressBurst: if burst is set, rate must also be set"),
            (json!({ "ingressRate": -1 }), 7, "ingressRate: -1 is not a number of bits"),
            (json!({ "ingressRate": 0.5 }), 7, "ingressRate: 0.5 is not a number of bits"),
            (json!({ "ingressRate": 1e30 }), 7, "ingressRate: 1e+30 is not a number of bits"),
            (json!({ "ingressRate": "10M" }), 7, "ingressRate: \"10M\" is not a number of bits"),
            (json!({ "ingressRate": "+1" }), 7, "ingressRate: \"+1\" is not a number of bits"),
            (json!({ "egressBurst": [1] }), 7, "egressBurst: [1] is not a number of bits"),
            (json!("fast"), 7, "bandwidth: \"fast\" is not an object"),
            (
                json!({ "ShapedSubnets": ["10.0.0.0/8"] }),
                2,
                "shapedSubnets is not supported (its value is [\"10.0.0.0/8\"])",
            ),
            (
                json!({ "unshapedSubnets": ["::/0"] }),
                2,
                "unshapedSubnets is not supported (its value is [\"::/0\"])",
            ),
        ] {
            for config in
                [json!({ "runtimeConfig": { "bandwidth": entry } }), json!({ "bandwidth": entry })]
            {
                let error = read(config).unwrap_err();
                assert_eq!((error.code, error.message.as_str()), (code, message));
            }
        }
    }
}
