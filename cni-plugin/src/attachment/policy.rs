//! The egress policy of a request: what each door gave, word for word.
//!
//! Owns its form in messages. The text travels instead of the rules, so that each process knows
//! where each rule was written. What a text means is in [`slirp_core::egress`].

use serde::{Deserialize, Serialize};
use slirp_core::egress::{EgressPolicy, RuleErrors};

/// What one door gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PolicyText {
    /// A list, each entry of which is empty, a rule or a setting.
    List { door: Door, entries: Vec<String> },
    /// A file. `name` is for messages.
    File { name: String, text: String },
}

/// Where a list was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Door {
    /// The key of a CNI configuration.
    Cni,
    /// The hook's arguments.
    Cli,
    /// The annotation of a container.
    Oci,
}

impl Door {
    /// Its name in the sources of rules.
    const fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Cli => "cli",
            Self::Oci => "oci",
        }
    }

    /// Its name in messages about errors.
    const fn label(self) -> &'static str {
        match self {
            Self::Cni => "policy",
            Self::Cli => "--policy",
            Self::Oci => "org.slirp.policy",
        }
    }
}

impl PolicyText {
    /// A list in one text, as [`EgressPolicy::entries`] cuts it.
    pub(crate) fn list(door: Door, text: &str) -> Self {
        Self::List { door, entries: EgressPolicy::entries(text).map(str::to_owned).collect() }
    }

    fn parse(&self) -> Result<EgressPolicy, RuleErrors> {
        match self {
            Self::List { door, entries } => {
                let entries = entries.iter().map(String::as_str);
                EgressPolicy::from_list(door.name(), door.label(), entries)
            }
            Self::File { name, text } => EgressPolicy::parse(text, name),
        }
    }
}

/// The policy of all doors together. Without any text it denies everything.
///
/// # Errors
/// What is wrong with the first of the texts that is wrong, or with their sum.
pub(crate) fn sum(texts: &[PolicyText]) -> Result<EgressPolicy, RuleErrors> {
    let policies: Vec<EgressPolicy> =
        texts.iter().map(PolicyText::parse).collect::<Result<_, _>>()?;
    EgressPolicy::merge_all(&policies)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_survive_the_way_between_processes_with_the_places_of_their_rules() {
        let texts = vec![
            PolicyText::list(
                Door::Cni,
                "allow a.example; deny b.example # no; rule\nallow 10.0.0.1",
            ),
            PolicyText::File { name: "/p".to_owned(), text: "# one\nallow c.example\n".to_owned() },
        ];
        let written = json!([
            { "list": {
                "door": "cni",
                "entries": ["allow a.example", " deny b.example # no; rule", "allow 10.0.0.1"],
            } },
            { "file": { "name": "/p", "text": "# one\nallow c.example\n" } },
        ]);
        assert_eq!(serde_json::to_value(&texts).unwrap(), written);
        assert_eq!(serde_json::from_value::<Vec<PolicyText>>(written).unwrap(), texts);
        let policy = sum(&texts).unwrap();
        let sources: Vec<String> =
            policy.rules().iter().map(|rule| rule.source.to_string()).collect();
        assert_eq!(sources, ["cni:1", "cni:2", "cni:3", "/p:2"]);
    }

    #[test]
    fn each_door_is_named_in_the_errors_about_it() {
        for (door, message) in [
            (Door::Cni, "policy[1]: column 7: a label is empty"),
            (Door::Cli, "--policy[1]: column 7: a label is empty"),
            (Door::Oci, "org.slirp.policy[1]: column 7: a label is empty"),
        ] {
            let errors = sum(&[PolicyText::list(door, "deny a.example\nallow a..example")]);
            assert_eq!(errors.unwrap_err().to_string(), message);
        }
    }
}
