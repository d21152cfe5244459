//! The completions, asked for in the real shells: what they offer is what `--help` lists.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/completions");

/// Prints what bash would offer for the words that are given, the last of which is incomplete.
const BASH: &str = r#"
source "$1/$2.bash"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_$1"
printf '%s\n' "${COMPREPLY[@]}"
"#;

const FISH: &str = r#"
source $argv[1]/$argv[2].fish
complete -C "$argv[2] $argv[3]"
"#;

/// Lets a zsh of its own complete `$2` on a terminal and notes the matches. zsh's completion works
/// in its line editor only.
const ZSH: &str = r#"
zmodload zsh/zpty
matches=$(mktemp)
zpty shell zsh -f -i
zpty -w shell "
PS1= PS2= RPS1=
fpath=(${(q)1} \$fpath)
autoload -Uz compinit
compinit -u -D
bindkey '^I' complete-word
zstyle ':completion:*' verbose false
compadd() {
    if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd \"\$@\"
        return
    fi
    local -a hits
    builtin compadd -O hits \"\$@\"
    print -rl -- \$hits >> ${(q)matches}
}
finish() { exit }
comppostfuncs=(finish)
"
zpty -w -n shell "$2"$'\t'
while zpty -r shell line; do :; done
cat $matches
rm $matches
"#;

/// Runs a shell without its user's settings; `None` where it is not installed, which is said aloud
/// and fails where `SLIRP_REQUIRE_NETNS=1`.
fn offers(shell: &str, arguments: &[&str]) -> Option<BTreeSet<String>> {
    let installed = ["/usr/bin", "/bin"].iter().any(|bin| Path::new(bin).join(shell).exists());
    if !installed {
        let required = std::env::var_os("SLIRP_REQUIRE_NETNS").is_some_and(|value| value == "1");
        assert!(!required, "SLIRP_REQUIRE_NETNS=1 and {shell} is not installed");
        // A line that cannot be written is a closed stderr: nobody is there to read it.
        let _ = writeln!(io::stderr(), "SKIPPED: {shell} is not installed");
        return None;
    }
    let output = Command::new("timeout")
        .args(["60", shell])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    let words = text.lines().map(|line| line.split('\t').next().unwrap_or_default());
    Some(words.filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

fn bash(words: &[&str]) -> Option<BTreeSet<String>> {
    bash_of("slirp4netns", words)
}

fn bash_of(program: &str, words: &[&str]) -> Option<BTreeSet<String>> {
    offers("bash", &[&["--norc", "-c", BASH, "bash", FOLDER, program], words].concat())
}

fn fish(line: &str) -> Option<BTreeSet<String>> {
    fish_of("slirp4netns", line)
}

fn fish_of(program: &str, line: &str) -> Option<BTreeSet<String>> {
    offers("fish", &["--no-config", "-c", FISH, FOLDER, program, line])
}

fn zsh(line: &str) -> Option<BTreeSet<String>> {
    zsh_of("slirp4netns", line)
}

fn zsh_of(program: &str, line: &str) -> Option<BTreeSet<String>> {
    offers("zsh", &["-f", "-c", ZSH, "zsh", FOLDER, &format!("{program} {line}")])
}

/// Long names that `--help` lists; those that take a value end with `=` where that is asked for.
fn listed(with_equals: bool) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_slirp4netns")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let left = help.lines().skip(3).map(|line| line.split("  ").next().unwrap_or_default());
    left.map(|left| {
        let long = left.split_whitespace().find(|word| word.starts_with("--")).unwrap();
        match long.split_once('=') {
            Some((name, _)) if with_equals => format!("{name}="),
            Some((name, _)) => name.to_owned(),
            None => long.to_owned(),
        }
    })
    .collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Nothing to compare where the shell is not installed.
fn assert_offers(offered: Option<BTreeSet<String>>, expected: &BTreeSet<String>) {
    if let Some(offered) = offered {
        assert_eq!(&offered, expected);
    }
}

#[test]
fn bash_offers_every_option_and_its_values() {
    assert_offers(bash(&["--"]), &listed(true));
    assert_offers(bash(&["--exit-f"]), &set(&["--exit-fd="]));
    assert_offers(bash(&["--netns-type", "="]), &set(&["path", "pid", "tapfd"]));
    assert_offers(bash(&["--netns-type", "=", "pa"]), &set(&["path"]));
    assert_offers(bash(&["--log-level", "d"]), &set(&["debug"]));
    assert_offers(bash(&["--audit", "d"]), &set(&["decisions", "denied"]));
    let path = ["--netns-type", "=", "path", "/etc/host"];
    assert_offers(bash(&path).map(|words| set_has(&words, "/etc/hostname")), &set(&["yes"]));
    let me = std::process::id().to_string();
    assert_offers(bash(&["-c", &me]).map(|words| set_has(&words, &me)), &set(&["yes"]));
}

#[test]
fn fish_offers_every_option_and_its_values() {
    assert_offers(fish("--"), &listed(false));
    let types = ["--netns-type=path", "--netns-type=pid", "--netns-type=tapfd"];
    assert_offers(fish("--netns-type="), &set(&types));
    assert_offers(fish("--log-level d"), &set(&["debug"]));
    let path = "--netns-type=path /etc/host";
    assert_offers(fish(path).map(|words| set_has(&words, "/etc/hostname")), &set(&["yes"]));
}

#[test]
fn zsh_offers_every_option_and_its_values() {
    assert_offers(zsh("--"), &listed(false));
    assert_offers(zsh("--netns-type="), &set(&["path", "pid", "tapfd"]));
    assert_offers(zsh("--log-level=d"), &set(&["debug"]));
    // What may be given once is not offered twice.
    assert_offers(zsh("--mtu=1500 --mt"), &set(&[]));
    assert_offers(zsh("--publish=80:80 --pub"), &set(&["--publish"]));
    let path = "--netns-type=path /etc/host";
    assert_offers(zsh(path).map(|words| set_has(&words, "hostname")), &set(&["yes"]));
}

#[test]
fn shells_offer_the_words_of_slirp_and_their_options() {
    let words: BTreeSet<String> = slirp_cli::words::names().map(str::to_owned).collect();
    assert!(words.contains("policy") && words.contains("oci-hook"));
    assert_offers(bash_of("slirp", &[""]), &words);
    assert_offers(zsh_of("slirp", ""), &words);
    let has = |offered: BTreeSet<String>, word: &str| set_has(&offered, word);
    assert_offers(fish_of("slirp", "").map(|all| has(all, "oci-hook")), &set(&["yes"]));
    let learn = set(&["--against", "--help", "--min", "--since"]);
    assert_offers(fish_of("slirp", "learn --"), &learn);
    assert_offers(zsh_of("slirp", "learn --"), &learn);
    let learn = set(&["--against=", "--help", "--min=", "--since="]);
    assert_offers(bash_of("slirp", &["learn", "--"]), &learn);
    let levels = set(&["decisions", "denied"]);
    assert_offers(bash_of("slirp", &["oci-hook", "--audit", "=", "d"]), &levels);
    assert_offers(zsh_of("slirp", "oci-hook --audit=d"), &levels);
    assert_offers(fish_of("slirp", "oci-hook --audit d"), &levels);
    assert_offers(bash_of("slirp", &["policy", "e"]), &set(&["explain"]));
    assert_offers(zsh_of("slirp", "policy e"), &set(&["explain"]));
    let publish = set(&["--publish="]);
    assert_offers(bash_of("slirp", &["run", "--pub"]), &publish);
    // Behind the command nothing is ours.
    for words in [&["run", "--dns", "192.0.2.1", "ls", "--al"][..], &["run", "--", "ls", "/etc/ho"]]
    {
        assert_offers(bash_of("slirp", words), &set(&[]));
    }
    let allow = set(&["--allow="]);
    assert_offers(bash_of("slirp", &["run", "--allow", "=", "any", "--al"]), &allow);
    assert_offers(zsh_of("slirp", "run --allow=any --al"), &set(&["--allow"]));
    let command = "run --map-root --dns 192.0.2.1 true";
    assert_offers(fish_of("slirp", command).map(|all| has(all, "true")), &set(&["yes"]));
    let file = "policy check /etc/host";
    assert_offers(fish_of("slirp", file).map(|all| has(all, "/etc/hostname")), &set(&["yes"]));
}

fn set_has(words: &BTreeSet<String>, word: &str) -> BTreeSet<String> {
    set(&[if words.contains(word) { "yes" } else { "no" }])
}
