//! Every production of the grammar, and every message.

use crate::egress::{
    Action, AddressSet, Direction, EgressPolicy, EgressRule, NamePattern, PortRange,
    RuleDestination, RuleProtocol, Verify,
};

fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(text, "p").unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

fn rule(text: &str) -> EgressRule {
    let policy = policy(text);
    assert_eq!(policy.rules().len(), 1, "{text}");
    policy.rules()[0].clone()
}

fn errors(text: &str) -> String {
    EgressPolicy::parse(text, "FILE").expect_err(text).to_string()
}

#[test]
fn every_spelling_has_one_canonical_form() {
    for (written, canonical) in [
        ("allow example.com", "allow example.com"),
        ("  ALLOW\tExample.COM.  # a comment", "allow example.com"),
        ("deny *.example.com", "deny *.example.com"),
        ("deny **.example.com", "deny *.example.com"),
        ("ask .example.com", "ask .example.com"),
        ("allow _dmarc.x-1.example", "allow _dmarc.x-1.example"),
        ("allow printer.", "allow printer."),
        ("allow any.", "allow any."),
        ("allow tcp.:80", "allow tcp.:80"),
        ("allow 1.2.3.4.example", "allow 1.2.3.4.example"),
        ("allow *.test wide=yes", "allow *.test wide=yes"),
        ("allow .test. wide=yes", "allow .test wide=yes"),
        ("deny *.zip", "deny *.zip"),
        ("allow 203.0.113.7", "allow 203.0.113.7"),
        ("allow 203.0.113.7/32", "allow 203.0.113.7"),
        ("allow 10.0.0.0/8:22", "allow 10.0.0.0/8:22"),
        ("allow 0.0.0.0/1", "allow 0.0.0.0/1"),
        ("allow 2001:DB8::1", "allow [2001:db8::1]"),
        ("allow 2001:db8::/32", "allow [2001:db8::/32]"),
        ("allow [2001:db8::1]", "allow [2001:db8::1]"),
        ("allow [2001:db8::/32]", "allow [2001:db8::/32]"),
        ("allow [2001:db8::/32]:443", "allow [2001:db8::/32]:443"),
        ("allow udp:[2001:db8::1]:53", "allow udp:[2001:db8::1]:53"),
        ("allow tcp:2001:db8::1", "allow tcp:[2001:db8::1]"),
        ("allow 64:ff9b::10.0.0.1", "allow [64:ff9b::a00:1]"),
        ("allow ::1", "allow [::1]"),
        ("allow host-loopback:11434", "allow host-loopback:11434"),
        ("allow Gateway", "allow host-loopback"),
        ("allow host", "allow host"),
        ("deny private", "deny private"),
        ("allow link-local", "allow link-local"),
        ("allow metadata:80", "allow metadata:80"),
        ("allow udp:multicast:5353", "allow udp:multicast:5353"),
        ("allow INTERNET:443", "allow internet:443"),
        ("allow dns", "allow dns:any"),
        ("allow dns:any", "allow dns:any"),
        ("deny dns:*.example.com", "deny dns:*.example.com"),
        ("allow TCP:example.com:443", "allow tcp:example.com:443"),
        ("allow udp:ntp.example:123", "allow udp:ntp.example:123"),
        ("allow icmp:any", "allow icmp:any"),
        ("allow tcp:any", "allow tcp:any"),
        ("deny any:25", "deny any:25"),
        ("allow any:*", "allow any:*"),
        ("allow a.example:*", "allow a.example:*"),
        ("allow a.example:443,80", "allow a.example:80,443"),
        ("allow a.example:80-90,85-95,96,443-443", "allow a.example:80-96,443"),
        ("allow a.example:1-65535", "allow a.example:1-65535"),
        ("allow a.example:65535,1", "allow a.example:1,65535"),
        ("allow in 203.0.113.0/24:8080", "allow in 203.0.113.0/24:8080"),
        ("deny IN any", "deny in any"),
        ("allow in tcp:private:22", "allow in tcp:private:22"),
        ("allow a.example verify=AUTO", "allow a.example"),
        ("allow a.example verify=off", "allow a.example verify=off"),
        ("allow a.example PRIVATE=yes", "allow a.example private=yes"),
        ("allow a.example log=no", "allow a.example log=no"),
        ("allow any log=no", "allow any log=no"),
        ("deny a.example note=\"ask Bob; #7\" # x", "deny a.example note=\"ask Bob; #7\""),
        ("deny a.example note=\"\"", "deny a.example note=\"\""),
        (
            "allow .corp note=\"a  b\" log=no wide=yes private=yes verify=off",
            "allow .corp verify=off private=yes wide=yes log=no note=\"a  b\"",
        ),
        ("allow a.example#comment", "allow a.example"),
    ] {
        let rule = rule(written);
        assert_eq!(rule.to_string(), canonical, "{written}");
        assert_eq!(policy(canonical), policy(written), "{written}");
    }
}

#[test]
fn a_rule_has_the_parts_that_were_written() {
    let rule = rule("ask tcp:*.example.com:22,8000-8010 private=yes verify=off log=no note=\"x\"");
    assert_eq!(rule.action, Action::Ask);
    assert_eq!(rule.direction, Direction::Out);
    assert_eq!(rule.protocol, Some(RuleProtocol::Tcp));
    let RuleDestination::Name(NamePattern::Below(name)) = &rule.destination else {
        panic!("{rule:?}");
    };
    assert_eq!(name.as_str(), "example.com");
    let ports = [PortRange { first: 22, last: 22 }, PortRange { first: 8000, last: 8010 }];
    assert_eq!(rule.ports.as_deref(), Some(&ports[..]));
    assert_eq!((rule.verify, rule.private, rule.log), (Verify::Off, true, false));
    assert_eq!(rule.note.as_deref(), Some("x"));
    assert_eq!(rule.source.to_string(), "p:1");
    let destination = RuleDestination::Set(AddressSet::HostLoopback);
    assert_eq!(self::rule("deny gateway").destination, destination);
}

#[test]
fn the_policy_of_the_examples_is_read() {
    let text = "allow .index.example\nallow files.example\nallow git.example:22\n\
                allow *.corp.example private=yes\nallow 10.9.8.7:5432\ndeny admin.corp.example\n\
                ask api.example\n";
    let policy = policy(text);
    assert_eq!(policy.rules().len(), 7);
    assert_eq!(policy.default_action(), Action::Deny);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(policy.to_text().lines().collect::<Vec<_>>(), lines);
}

#[test]
fn any_alone_is_the_default() {
    for (text, default) in [
        ("", Action::Deny),
        ("deny any", Action::Deny),
        ("allow any\nALLOW ANY", Action::Allow),
        ("ask any # all", Action::Ask),
    ] {
        let policy = policy(text);
        assert_eq!((policy.default_action(), policy.rules().len()), (default, 0), "{text}");
    }
    for text in ["deny any:25", "allow in any", "allow tcp:any", "allow any log=no", "allow dns"] {
        assert_eq!(policy(text).default_action(), Action::Deny, "{text}");
        assert_eq!(policy(text).rules().len(), 1, "{text}");
    }
}

#[test]
fn settings_are_read() {
    for text in [
        "set mode enforce",
        "set mode audit",
        "set ech allow",
        "set ech deny",
        "set dns-redirect yes",
        "set dns-redirect no",
        "set ask-timeout 5",
        "set ask-timeout 120",
        "set placeholder 198.19.192.0/18",
    ] {
        assert_eq!(policy(text).to_text(), format!("{text}\n"));
        assert_eq!(policy(&text.to_ascii_uppercase()).to_text(), format!("{text}\n"));
    }
}

/// Every message with the rule that gets it.
#[test]
fn every_error_has_its_message_and_its_column() {
    let mut wrong = Vec::new();
    for (text, column, message) in [
        ("permit a.example", 1, "\"permit\" is no action: allow, deny or ask"),
        ("allow", 6, "a destination is missing"),
        ("allow in", 9, "a destination is missing"),
        ("allow :80", 7, "a destination is missing"),
        ("allow 10.0.0.1/8", 7, "10.0.0.1/8 has bits behind its prefix; did you mean 10.0.0.0/8?"),
        (
            "allow 2001:db8::1/32",
            7,
            "2001:db8::1/32 has bits behind its prefix; did you mean 2001:db8::/32?",
        ),
        ("allow 10.0.0.0/33", 16, "the prefix of an IPv4 network is 0 to 32"),
        ("allow 10.0.0.0/+8", 16, "the prefix of an IPv4 network is 0 to 32"),
        ("allow [2001:db8::/129]:80", 19, "the prefix of an IPv6 network is 0 to 128"),
        ("allow 0.0.0.0/0", 7, "say \"allow any\" (all destinations) or \"allow internet\""),
        ("allow ::/0", 7, "say \"allow any\" (all destinations) or \"allow internet\""),
        ("deny tcp:*:80", 10, "say \"deny any\" (all destinations) or \"deny internet\""),
        ("allow *", 7, "say \"allow any\" (all destinations) or \"allow internet\""),
        ("allow in *", 10, "say \"allow in any\" (all destinations) or \"allow in internet\""),
        ("allow *example.com", 7, "\"*\" stands only in front, followed by a dot: *.example.com"),
        ("allow a.*.example", 7, "\"*\" stands only in front, followed by a dot: *.example.com"),
        ("allow *.*.example", 7, "\"*\" stands only in front, followed by a dot: *.example.com"),
        ("allow *.com", 7, "*.com is everybody's; add wide=yes if you mean it"),
        ("allow .COM.", 7, ".com is everybody's; add wide=yes if you mean it"),
        ("allow https://a.example/x", 7, "a rule has no scheme or path: a.example:443"),
        ("allow http://a.example", 7, "a rule has no scheme or path: a.example:80"),
        ("allow https://a.example:8443/x", 7, "a rule has no scheme or path: a.example:8443"),
        ("allow a.example/x", 7, "a rule has no scheme or path: a.example"),
        ("allow a.example:0", 17, "ports are 1 to 65535"),
        ("allow a.example:80,65536", 20, "ports are 1 to 65535"),
        ("allow a.example:", 17, "ports are 1 to 65535"),
        ("allow a.example:80,", 20, "ports are 1 to 65535"),
        ("allow a.example:80-", 20, "ports are 1 to 65535"),
        ("allow a.example:http", 17, "ports are 1 to 65535"),
        ("allow a.example:90-80", 17, "the range 90-80 ends before it begins"),
        (
            "allow a.example:1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33",
            60,
            "a rule has at most 16 ports and ranges",
        ),
        (
            "allow 1:2:3:4:5:6:7:8:443",
            7,
            "an IPv6 address with ports needs brackets: [1:2:3:4:5:6:7:8]:443",
        ),
        (
            "allow 2001:db8::1:80,443",
            7,
            "an IPv6 address with ports needs brackets: [2001:db8::1]:80,443",
        ),
        (
            "allow 2001:db8::/32:443",
            7,
            "an IPv6 address with ports needs brackets: [2001:db8::/32]:443",
        ),
        ("allow münchen.example", 7, "names are ASCII: write the xn-- form"),
        (
            "allow a.example note=\"ü\" x",
            22,
            "note is printable ASCII in quotes, at most 120 bytes, without \" and \\",
        ),
        ("deny ::ffff:10.0.0.1", 6, "::ffff:10.0.0.1 is an IPv4 address: write 10.0.0.1"),
        ("deny [::ffff:a00:0/104]:80", 7, "::ffff:10.0.0.0 is an IPv4 address: write 10.0.0.0"),
        ("allow a..example", 7, "a label is empty"),
        ("allow *.", 7, "a label is empty"),
        ("allow .", 7, "a label is empty"),
        ("allow a.example..", 7, "a label is empty"),
        ("allow 1.2.3", 7, "\"1.2.3\" is neither an address nor a name"),
        ("allow 1.2.3.04", 7, "\"1.2.3.04\" is neither an address nor a name"),
        ("allow 1.2.3.256", 7, "\"1.2.3.256\" is neither an address nor a name"),
        ("allow 10.0.0/8", 7, "\"10.0.0/8\" is neither an address nor a name"),
        ("allow 2001:db8:::1", 7, "an IPv6 address with ports needs brackets: [2001:db8::]:1"),
        ("allow 2001:db8::g", 7, "\"2001:db8::g\" is neither an address nor a name"),
        ("allow [2001:db8::1", 7, "\"[2001:db8::1\" is neither an address nor a name"),
        ("allow [2001:db8::1]80", 7, "\"[2001:db8::1]80\" is neither an address nor a name"),
        ("allow [10.0.0.1]:80", 7, "\"[10.0.0.1]:80\" is neither an address nor a name"),
        ("allow [a:b.example]", 8, "\"a:b.example\" is neither an address nor a name"),
        ("allow fe80::1%eth0", 7, "\"fe80::1%eth0\" is neither an address nor a name"),
        ("allow a,b.example", 7, "\"a,b.example\" is neither an address nor a name"),
        ("allow \u{1b}[31m.example", 7, "\"\\u{1b}[31m.example\" is neither an address nor a name"),
        ("allow \"x\\\".example", 7, "\"\\\"x\\\\\\\".example\" is neither an address nor a name"),
        ("allow sctp:a.example:80", 7, "\"sctp\" is no protocol: tcp, udp, icmp or dns"),
        ("allow -a.example", 7, "a label neither begins nor ends with \"-\""),
        ("allow a-.example", 7, "a label neither begins nor ends with \"-\""),
        ("allow icmp:a.example:80", 22, "icmp has no ports"),
        ("allow dns:a.example:53", 21, "dns has no ports"),
        ("allow in a.example", 10, "\"in\" takes addresses, not names"),
        ("allow in dns", 10, "\"in\" takes addresses, not names"),
        ("allow dns:10.0.0.1", 7, "\"dns\" takes names, not addresses"),
        ("allow dns:internet", 7, "\"dns\" takes names, not addresses"),
        ("allow a.example verify=no", 24, "verify is auto or off"),
        ("allow a.example private=no", 25, "private is yes"),
        ("allow a.example wide=", 22, "wide is yes"),
        ("allow a.example log=yes", 21, "log is no"),
        ("allow private private=yes", 15, "private=yes is for names"),
        ("allow a.example log=no LOG=no", 24, "log was already given"),
        (
            "allow a.example b.example",
            17,
            "\"b.example\" is no option: verify, private, wide, log or note",
        ),
        ("allow a.example x=1", 17, "\"x=1\" is no option: verify, private, wide, log or note"),
        (
            "allow a.example note=\"x",
            22,
            "note is printable ASCII in quotes, at most 120 bytes, without \" and \\",
        ),
        ("ask dns", 5, "a lookup is allowed or denied, not asked"),
        ("ask dns:a.example", 5, "a lookup is allowed or denied, not asked"),
        (
            "deny privat",
            6,
            "\"privat\" is a name of one label; did you mean the set \"private\"? (write privat. \
             for the name)",
        ),
        ("deny printer", 6, "\"printer\" is a name of one label (write printer. for it)"),
        ("set", 4, "a setting is missing: mode, ech, dns-redirect, ask-timeout or placeholder"),
        (
            "set ecn on",
            5,
            "\"ecn\" is no setting: mode, ech, dns-redirect, ask-timeout or placeholder",
        ),
        ("set mode", 9, "mode is enforce or audit"),
        ("set mode off", 10, "mode is enforce or audit"),
        ("set ech maybe", 9, "ech is allow or deny"),
        ("set dns-redirect 1", 18, "dns-redirect is yes or no"),
        ("set ask-timeout 4", 17, "ask-timeout is 5 to 120 seconds"),
        ("set ask-timeout 121", 17, "ask-timeout is 5 to 120 seconds"),
        ("set ask-timeout 9s", 17, "ask-timeout is 5 to 120 seconds"),
        ("set placeholder fd00::/64", 17, "placeholder is an IPv4 network of /8 to /30"),
        ("set placeholder 10.0.0.0/7", 17, "placeholder is an IPv4 network of /8 to /30"),
        ("set mode audit now", 16, "\"now\" stands behind the end of the setting"),
    ] {
        let expected = format!("FILE:1:{column}: {message}");
        if errors(text) != expected {
            wrong.push(format!("{text}\n  {}\n  {expected}", errors(text)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
