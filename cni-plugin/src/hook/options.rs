//! The options of the network: arguments of the command line and annotations of the container.
//!
//! Owns their names, the translation into a CNI configuration, which validates them, and what a
//! container's author may say about its egress policy.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use slirp_cli::wording::rate;
use slirp_cli::words::{Given, OCI_HOOK};
use slirp_core::Rates;
use slirp_core::egress::{Action, EgressRule, Settings, Verify};

use super::{Failure, NETWORK};
use crate::attachment::policy::{Door, PolicyText, sum};
use crate::config::policy;

/// The prefix of our annotations.
pub(super) const ANNOTATION_PREFIX: &str = "org.slirp.";

/// The interface's usual name.
const IFNAME: &str = "eth0";

/// Whether `name` is an annotation as well. The author of a container's configuration neither
/// chooses files of the host nor opens a way to steer the network.
fn is_annotation(name: &str) -> bool {
    OCI_HOOK.groups[0].flags.iter().any(|flag| flag.long == name)
}

/// Whether to attach or to detach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Up,
    Down,
}

/// The parsed command line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Arguments {
    /// Given as a word; otherwise the state decides.
    pub(super) direction: Option<Direction>,
    pub(super) wants_help: bool,
    pub(super) log_file: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    /// Rules, one for each line and `;`.
    rules: Option<String>,
    policy_files: Vec<PathBuf>,
    options: BTreeMap<String, String>,
}

impl Arguments {
    /// Parses the command line after the word.
    ///
    /// # Errors
    /// For an unknown option, or one without its value.
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let line = match OCI_HOOK.parse(arguments).map_err(Failure)? {
            Given::Line(line) => line,
            Given::Help => return Ok(Self { wants_help: true, ..parsed }),
        };
        for operand in line.operands() {
            parsed.direction = Some(match operand.to_str() {
                Some("up") => Direction::Up,
                Some("down") => Direction::Down,
                _ => {
                    let word = operand.display();
                    return Err(Failure(format!("unknown argument {word} (try --help)")));
                }
            });
        }
        for (flag, value) in line.options() {
            let value = value.map_or(Some("true"), OsStr::to_str);
            let value = value.ok_or_else(|| Failure(format!("--{} is not UTF-8", flag.long)))?;
            parsed.keep(flag.long, value.to_owned())?;
        }
        Ok(parsed)
    }

    fn keep(&mut self, name: &str, value: String) -> Result<(), Failure> {
        let absolute = |value: &str| {
            let path = PathBuf::from(value);
            path.is_absolute().then_some(path).ok_or_else(|| {
                // A hook's working folder is the bundle, which the author of a relative path may
                // not expect.
                Failure(format!("--{name}: {value} is not an absolute path"))
            })
        };
        match name {
            "log-file" => self.log_file = Some(absolute(&value)?),
            "state-dir" => self.state_dir = Some(absolute(&value)?),
            "policy-file" => self.policy_files.push(absolute(&value)?),
            "audit-log" | "control-socket" => {
                absolute(&value)?;
                self.options.insert(name.to_owned(), value);
            }
            // A repeated option adds rules.
            "policy" => {
                let rules = self.rules.get_or_insert_default();
                if !rules.is_empty() {
                    rules.push('\n');
                }
                rules.push_str(&value);
            }
            // A repeated option adds ports.
            "ports" => {
                let ports = self.options.entry(name.to_owned()).or_default();
                if !ports.is_empty() {
                    ports.push(',');
                }
                ports.push_str(&value);
            }
            _ => {
                self.options.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }
}

/// Arguments and annotations together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Options {
    values: BTreeMap<String, String>,
    log_file: Option<PathBuf>,
    rules: Option<String>,
    policy_files: Vec<PathBuf>,
}

impl Options {
    /// Arguments win over annotations.
    ///
    /// # Errors
    /// For an unknown annotation with our prefix.
    pub(super) fn new(
        arguments: &Arguments,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(ANNOTATION_PREFIX) else { continue };
            if !is_annotation(name) {
                return Err(Failure(format!("annotation {key} is not known")));
            }
            values.insert(name.to_owned(), value.clone());
        }
        values.extend(arguments.options.clone());
        Ok(Self {
            values,
            log_file: arguments.log_file.clone(),
            rules: arguments.rules.clone(),
            policy_files: arguments.policy_files.clone(),
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.text(name) {
            None => Ok(default),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some("false" | "0" | "no" | "off") => Ok(false),
            Some(value) => Err(Failure(format!("{name}: {value:?} is neither true nor false"))),
        }
    }

    pub(super) fn ifname(&self) -> &str {
        self.text("ifname").unwrap_or(IFNAME)
    }

    pub(super) fn attaches_shared(&self) -> Result<bool, Failure> {
        self.flag("attach-shared", false)
    }

    /// How fast the container may send and receive.
    ///
    /// # Errors
    /// For a value that is no rate.
    pub(super) fn rates(&self) -> Result<Rates, Failure> {
        let rate = |name: &str| {
            let rate = self.text(name).map(|text| {
                rate(text).map_err(|error| Failure(format!("{name}: {text:?}: {error}")))
            });
            rate.transpose()
        };
        Ok(Rates::new(rate("rate-in")?, rate("rate-out")?))
    }

    /// The egress policy of all doors. `environment` is what the hook's environment gives.
    ///
    /// # Errors
    /// For a file that cannot be read, and for an annotation that would open what is closed.
    pub(super) fn policy(
        &self,
        environment: Option<PolicyText>,
    ) -> Result<Vec<PolicyText>, Failure> {
        let mut texts: Vec<PolicyText> = environment.into_iter().collect();
        texts.extend(self.rules.as_deref().map(|rules| PolicyText::list(Door::Cli, rules)));
        for path in &self.policy_files {
            texts.push(policy::file(path)?);
        }
        if let Some(rules) = self.text("policy") {
            let annotation = PolicyText::list(Door::Oci, rules);
            if !texts.is_empty() {
                refuse_opening(&annotation)?;
            }
            texts.push(annotation);
        }
        Ok(texts)
    }

    /// The options as a CNI configuration.
    ///
    /// # Errors
    /// For a value that cannot be parsed.
    pub(super) fn configuration(&self) -> Result<Map<String, Value>, Failure> {
        let mut object = Map::new();
        let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
        set("name", json!(NETWORK));
        if let Some(text) = self.text("mtu") {
            let mtu: i64 = text
                .parse()
                .map_err(|_| Failure(format!("mtu: {text:?} is not a number of bytes")))?;
            set("mtu", json!(mtu));
        }
        for (name, key) in [
            ("cidr", "cidr"),
            ("mac", "mac"),
            ("audit-log", "auditLog"),
            ("audit", "audit"),
            ("control-socket", "controlSocket"),
            ("metrics", "metrics"),
        ] {
            if let Some(text) = self.text(name) {
                set(key, json!(text));
            }
        }
        set("auditRequired", json!(self.flag("audit-required", false)?));
        if let Some(text) = self.text("ports") {
            set("portMappings", ports(text)?);
        }
        set("enableIPv6", json!(self.flag("ipv6", false)?));
        set("disableDNS", json!(!self.flag("dns", true)?));
        set("disableHostLoopback", json!(self.flag("disable-host-loopback", false)?));
        set("sandbox", json!(self.flag("sandbox", true)?));
        if let Some(file) = &self.log_file {
            set("logFile", json!(file.display().to_string()));
        }
        Ok(object)
    }
}

/// Refuses an annotation that does more than deny or ask: the author of a container's configuration
/// is not the operator.
fn refuse_opening(annotation: &PolicyText) -> Result<(), Failure> {
    let annotated = sum(std::slice::from_ref(annotation)).map_err(|e| policy::invalid(&e))?;
    let allowing = annotated.rules().iter().find(|rule| rule.action == Action::Allow);
    // Neither may it hide from the log, nor loosen what a yes would let through.
    let loosens = |rule: &&EgressRule| !rule.log || rule.private || rule.verify != Verify::Auto;
    let what = if let Some(rule) = allowing.or_else(|| annotated.rules().iter().find(loosens)) {
        rule.to_string()
    } else if annotated.default_action() != Action::Deny {
        format!("{} any", annotated.default_action())
    } else if *annotated.settings() != Settings::default() {
        "a setting".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure(format!(
        "org.slirp.policy: {what}: the operator has given a policy, to which an annotation may \
         only add rules that deny or ask"
    )))
}

/// Reads `[IP:]PORT:PORT[/PROTOCOL],...`.
fn ports(text: &str) -> Result<Value, Failure> {
    let rules = text.split(',').map(str::trim).filter(|rule| !rule.is_empty());
    rules.map(port).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn port(rule: &str) -> Result<Value, Failure> {
    let invalid = || {
        Failure(format!(
            "ports: {rule:?} is not of the form [IP:]PORT:PORT[/PROTOCOL], such as 8080:80/tcp"
        ))
    };
    let (ports, protocol) = rule.split_once('/').unwrap_or((rule, "tcp"));
    let (host, guest_port) = ports.rsplit_once(':').ok_or_else(invalid)?;
    let (ip, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    // IPv6 addresses are in brackets, as in URLs (RFC 3986 section 3.2.2).
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    Ok(json!({
        "hostIP": ip,
        "hostPort": number(host_port)?,
        "containerPort": number(guest_port)?,
        "protocol": protocol,
    }))
}

#[cfg(test)]
mod tests {
    use slirp_core::Rate;

    use super::*;

    fn arguments(words: &[&str]) -> Result<Arguments, Failure> {
        Arguments::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn arguments_win_over_annotations() {
        let arguments =
            arguments(&["up", "--mtu=9000", "--ports", "1:2", "--ports=3:4/udp", "--ipv6"])
                .unwrap();
        assert_eq!(arguments.direction, Some(Direction::Up));
        let annotations = [("org.slirp.mtu", "1600"), ("org.slirp.ifname", "net1"), ("other", "x")];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let options = Options::new(&arguments, &annotations).unwrap();
        assert_eq!(options.ifname(), "net1");
        let object = options.configuration().unwrap();
        assert_eq!(object["mtu"], 9000);
        assert_eq!(object["enableIPv6"], true);
        assert_eq!(object["portMappings"][1]["protocol"], "udp");
    }

    #[test]
    fn ports_have_an_address_of_the_host_or_none() {
        for (rule, ip, host, guest, protocol) in [
            ("18081:80/tcp", "", 18081, 80, "tcp"),
            ("127.0.0.1:53:5353/udp", "127.0.0.1", 53, 5353, "udp"),
            ("[::1]:1:2", "::1", 1, 2, "tcp"),
        ] {
            let expected = json!([{
                "hostIP": ip, "hostPort": host, "containerPort": guest, "protocol": protocol,
            }]);
            assert_eq!(ports(rule), Ok(expected));
        }
        for rule in ["80", "80:", ":80", "a:80", "80:65536", "80:80:80:"] {
            assert!(ports(rule).unwrap_err().to_string().contains("[IP:]PORT:PORT"), "{rule}");
        }
    }

    /// Whoever changes the groups of `--help` must not hand rights to annotations by that.
    #[test]
    fn annotations_are_these_and_no_others() {
        let known = OCI_HOOK.flags().map(|flag| flag.long).filter(|long| is_annotation(long));
        let expected = [
            "ports",
            "mtu",
            "cidr",
            "ipv6",
            "ifname",
            "dns",
            "mac",
            "disable-host-loopback",
            "attach-shared",
            "policy",
            "rate-in",
            "rate-out",
        ];
        assert_eq!(known.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn unknown_options_are_named() {
        for (words, message) in [
            (&["--wrong"][..], "--wrong is no option of slirp oci-hook"),
            (&["sideways"], "unknown argument sideways (try --help)"),
            (&["--mtu"], "--mtu needs a value: BYTES"),
            (&["--log-file=here"], "--log-file: here is not an absolute path"),
        ] {
            assert_eq!(arguments(words).unwrap_err().to_string(), message);
        }
        let annotations = [("org.slirp.mtv".to_owned(), "1".to_owned())].into();
        let failure = Options::new(&Arguments::default(), &annotations).unwrap_err();
        assert_eq!(failure.to_string(), "annotation org.slirp.mtv is not known");
        let wrong = Options::new(&arguments(&["--ipv6=maybe"]).unwrap(), &BTreeMap::new()).unwrap();
        let failure = wrong.configuration().unwrap_err();
        assert_eq!(failure.to_string(), "ipv6: \"maybe\" is neither true nor false");
    }

    fn options_of(words: &[&str], annotations: &[(&str, &str)]) -> Result<Options, Failure> {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Options::new(&arguments(words).unwrap(), &annotations.collect())
    }

    #[test]
    fn annotation_opens_no_file_and_no_socket() {
        for name in
            ["audit-log", "audit", "audit-required", "control-socket", "metrics", "policy-file"]
        {
            let key = format!("org.slirp.{name}");
            let failure = options_of(&[], &[(&key, "/x")]).unwrap_err().to_string();
            assert_eq!(failure, format!("annotation {key} is not known"));
        }
    }

    #[test]
    fn operator_has_a_log_and_sockets_by_arguments() {
        let words = [
            "--audit-log=/log/{containerID}",
            "--audit=all",
            "--audit-required",
            "--control-socket",
            "/run/c",
            "--metrics=unix:/run/m",
        ];
        let object = options_of(&words, &[]).unwrap().configuration().unwrap();
        assert_eq!(object["auditLog"], "/log/{containerID}");
        assert_eq!((&object["audit"], &object["auditRequired"]), (&json!("all"), &json!(true)));
        assert_eq!(object["controlSocket"], "/run/c");
        assert_eq!(object["metrics"], "unix:/run/m");
        for (word, message) in [
            ("--audit-log=a", "--audit-log: a is not an absolute path"),
            ("--control-socket=c", "--control-socket: c is not an absolute path"),
        ] {
            assert_eq!(arguments(&[word]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn rates_are_arguments_or_annotations() {
        let annotations = [("org.slirp.rate-in", "5M"), ("org.slirp.rate-out", "1k,burst=9")];
        let options = options_of(&["--rate-in=1M"], &annotations).unwrap();
        let rate = |bits_per_second, burst| Some(Rate { bits_per_second, burst });
        let expected = Rates::new(rate(1_000_000, None), rate(1_000, Some(9)));
        assert_eq!(options.rates(), Ok(expected));
        assert_eq!(options_of(&[], &[]).unwrap().rates(), Ok(Rates::default()));
        let failure = options_of(&["--rate-out=fast"], &[]).unwrap().rates().unwrap_err();
        assert!(failure.to_string().starts_with("rate-out: \"fast\": expected RATE"), "{failure}");
    }

    fn policy_of(words: &[&str], annotation: &str, file: Option<&str>) -> Result<String, Failure> {
        let annotations = [("org.slirp.policy".to_owned(), annotation.to_owned())].into();
        let options = Options::new(&arguments(words).unwrap(), &annotations)?;
        let file =
            file.map(|text| PolicyText::File { name: "/p".to_owned(), text: text.to_owned() });
        let texts = options.policy(file)?;
        Ok(sum(&texts).map_err(|errors| policy::invalid(&errors))?.to_text())
    }

    #[test]
    fn annotation_alone_says_where_the_container_may_go() {
        let text = policy_of(&[], "allow a.example; set ech deny\nallow any", None);
        assert_eq!(text.unwrap(), "allow any\nset ech deny\nallow a.example\n");
        assert_eq!(policy_of(&[], "", None).unwrap(), "", "all is denied");
        let none = Options::new(&Arguments::default(), &BTreeMap::new()).unwrap();
        assert_eq!(none.policy(None).unwrap(), []);
    }

    #[test]
    fn annotation_narrows_what_the_operator_allows_and_widens_nothing() {
        let operator: &[&str] = &["--policy", "allow .a.example", "--policy=allow 10.0.0.1; "];
        let narrowed = policy_of(operator, "deny x.a.example; ask y.a.example", None).unwrap();
        assert_eq!(
            narrowed,
            "allow .a.example\nallow 10.0.0.1\nask y.a.example\ndeny x.a.example\n"
        );
        for (annotation, what) in [
            ("deny x.a.example; allow b.example", "allow b.example"),
            ("allow any", "allow any"),
            ("ask any", "ask any"),
            ("allow in any", "allow in any"),
            ("set mode audit", "a setting"),
            ("set mode enforce", "a setting"),
        ] {
            let start = format!("org.slirp.policy: {what}: the operator has given a policy");
            for (words, file) in
                [(operator, None), (&["--policy="][..], None), (&[], Some("allow .a.example"))]
            {
                let failure = policy_of(words, annotation, file).unwrap_err().to_string();
                assert!(failure.starts_with(&start), "{annotation}: {failure}");
            }
        }
    }

    #[test]
    fn policy_file_is_the_operators_alone_and_named_by_its_path() {
        let failure = arguments(&["--policy-file=p"]).unwrap_err().to_string();
        assert_eq!(failure, "--policy-file: p is not an absolute path");
        let annotations = [("org.slirp.policy-file".to_owned(), "/p".to_owned())].into();
        let failure = Options::new(&Arguments::default(), &annotations).unwrap_err().to_string();
        assert_eq!(failure, "annotation org.slirp.policy-file is not known");
        let missing = arguments(&["--policy-file", "/none/p"]).unwrap();
        let options = Options::new(&missing, &BTreeMap::new()).unwrap();
        let failure = options.policy(None).unwrap_err().to_string();
        assert!(failure.starts_with("cannot read the policy /none/p: "), "{failure}");
    }
}
