//! What the fuzz targets of this workspace reach of the programs.
//!
//! Owns nothing: each function reads by the code that the programs read by, and writes what came of
//! it. No version promises to keep any of them.

/// The options for ports of pasta(1) and pesto(1).
pub mod ports {
    use crate::dialect::pasta::control::wire;
    use crate::dialect::pasta::ports::PortSpec;
    use crate::dialect::pasta::ports::rules::{EPHEMERAL, PortOption, PortRules};

    /// What a value means.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Value {
        /// The value, printed.
        pub printed: String,
        /// Its rules as a client of the control socket sends them; why they cannot be, otherwise.
        pub change: Result<Vec<u8>, String>,
    }

    /// Reads a value of one of the options: `at` 0 is `-t`, then `-u`, `-T`, `-U`. `None` if it is
    /// not of the form.
    pub fn read_value(at: u8, text: &str) -> Option<Value> {
        let option = PortOption::ALL[usize::from(at) % PortOption::ALL.len()];
        let printed = PortSpec::parse(text).ok()?.to_string();
        let rules = PortRules::given([(option, text)], &EPHEMERAL);
        let change = rules.map(|rules| wire::change(&rules)).map_err(|error| error.to_string());
        Some(Value { printed, change })
    }
}

/// The bytes on the control socket of pasta(1).
pub mod wire {
    use std::io;

    use crate::dialect::pasta::control::wire;
    use crate::dialect::pasta::ports::rules::PortRules;

    /// What came of bytes that were read.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Heard {
        /// As they are written again.
        pub bytes: Vec<u8>,
        /// Their rules, as they are shown.
        pub rules: Vec<String>,
    }

    /// Reads what a network says first.
    ///
    /// # Errors
    /// It is no such greeting, or it is cut short.
    pub fn read_greeting(mut bytes: &[u8]) -> io::Result<Heard> {
        let rules = wire::read_greeting(&mut bytes)?;
        Ok(Heard { bytes: wire::greeting(&rules), rules: shown(&rules) })
    }

    /// Reads what a client wants. `None` if it hangs up at once. Tables that it leaves as they are
    /// are written without rules.
    ///
    /// # Errors
    /// They are no tables, or they are cut short.
    pub fn read_change(mut bytes: &[u8]) -> io::Result<Option<Heard>> {
        let Some(tables) = wire::read_change(&mut bytes)? else { return Ok(None) };
        let mut rules = PortRules::default();
        for (table, its) in tables {
            *table.rules_mut(&mut rules) = its;
        }
        Ok(Some(Heard { bytes: wire::change(&rules), rules: shown(&rules) }))
    }

    /// Reads what has come of a change, and writes it again. `None` if the network says nothing.
    ///
    /// # Errors
    /// It is cut short.
    pub fn read_status(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let status = wire::read_status(&mut bytes)?;
        Ok(status.map(|status| wire::status(status.err().as_deref())))
    }

    fn shown(rules: &PortRules) -> Vec<String> {
        rules.inbound.iter().chain(&rules.outbound).map(ToString::to_string).collect()
    }
}
