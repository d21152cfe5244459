//! The completions of bash, fish and zsh, made from the tables.
//!
//! The files in `completions` are what this makes; a test compares them, and writes them anew where
//! `SLIRP_RENEW=1`.

use super::{Flag, Offers, Value};

/// What a shell knows about a program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Its words, or one command without a name.
    pub(crate) commands: Vec<Command>,
}

/// A command line.
pub(crate) struct Command {
    /// The word; empty for a program without words.
    pub(crate) word: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: Vec<Flag>,
    pub(crate) operands: Operands,
}

/// What the operands of a command are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operands {
    /// The first of these words, and then these.
    Of(&'static [&'static str], Offers),
    /// Those of slirp4netns: what they are depends on options.
    Guest,
}

impl Program {
    fn has_words(&self) -> bool {
        self.commands.iter().all(|command| !command.word.is_empty())
    }

    /// `slirp4netns` in names of functions.
    fn head(&self, shell: &str, place: &str) -> String {
        let name = self.name;
        format!(
            "# {shell} completion for {name}(1), made from its table of options. Needs no other \
             file.\n#\n# Install as {place}.\n"
        )
    }

    /// The completion of bash.
    pub(crate) fn bash(&self) -> String {
        let name = self.name;
        let place = format!("/usr/share/bash-completion/completions/{name}");
        let mut text = self.head("bash", &place);
        text += &format!(
            "\n_{name}_candidates() {{\n    mapfile -t COMPREPLY < <(compgen \"$@\" -- \"$cur\")\n\
             }}\n\n_{name}_files() {{\n    compopt -o filenames 2>/dev/null\n    \
             _{name}_candidates -f\n}}\n\n# What is given for an option that wants a value, as the \
             word and the option. `=` is a word of its\n# own in COMP_WORDS.\n\
             _{name}_value() {{\n    case \"$1 $2\" in\n"
        );
        for command in &self.commands {
            for flag in &command.flags {
                if !matches!(flag.value, Value::Needed(_)) {
                    continue;
                }
                let word = command.word;
                let short = flag.short.map(|it| format!("\"{word} -{it}\" | ")).unwrap_or_default();
                let action = bash_offers(name, flag.offers);
                text += &format!("    {short}\"{word} --{}\") {action} ;;\n", flag.long);
            }
        }
        text += "    *) return 1 ;;\n    esac\n}\n\n";
        text += &format!("_{name}_options() {{\n    case $1 in\n");
        for command in &self.commands {
            let mut words = Vec::new();
            for flag in &command.flags {
                words.extend(flag.short.map(|short| format!("-{short}")));
                let equals = if matches!(flag.value, Value::Needed(_)) { "=" } else { "" };
                words.push(format!("--{}{equals}", flag.long));
            }
            let pattern = if command.word.is_empty() { "\"\"" } else { command.word };
            text += &format!("    {pattern})\n        _{name}_candidates -W \"\n");
            text += &wrapped(&words, 12);
            text += "\"\n        ;;\n";
        }
        text += "    esac\n    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o \
                 nospace 2>/dev/null\n}\n\n";
        text += &format!("_{name}_operand() {{\n    case $1 in\n");
        for command in &self.commands {
            let pattern = if command.word.is_empty() { "\"\"" } else { command.word };
            match command.operands {
                Operands::Guest => {
                    text += &format!(
                        "    {pattern})\n        case \" ${{COMP_WORDS[*]}} \" in\n        \
                         *\" --netns-type = path \"* | *\" --netns-type path \"* | \\\n            \
                         *\" --target-type = \"[bs]* | *\" --target-type \"[bs]*)\n            \
                         _{name}_files\n            ;;\n        *) _{name}_candidates -W \
                         '$(cd /proc && echo [0-9]*) tap0' ;;\n        esac\n        ;;\n"
                    );
                }
                Operands::Of([], offers) => {
                    text += &format!("    {pattern}) {} ;;\n", bash_offers(name, offers));
                }
                Operands::Of(subwords, offers) => {
                    text += &format!(
                        "    {pattern})\n        if (($2 == 2)); then\n            \
                         _{name}_candidates -W \"{}\"\n        else\n            {}\n        \
                         fi\n        ;;\n",
                        subwords.join(" "),
                        bash_offers(name, offers)
                    );
                }
            }
        }
        text += "    esac\n}\n\n";
        if self.commands.iter().any(Command::runs_a_command) {
            text += &format!("{}\n", HAS_COMMAND.replace("NAME", name));
        }
        let word = if self.has_words() { "${COMP_WORDS[1]}" } else { "" };
        text += &format!(
            "_{name}() {{\n    local cur=${{COMP_WORDS[COMP_CWORD]}} \
             option=${{COMP_WORDS[COMP_CWORD - 1]}} word={word}\n    COMPREPLY=()\n"
        );
        if self.has_words() {
            let words: Vec<_> = self.commands.iter().map(|it| it.word.to_owned()).collect();
            text += &format!(
                "    if ((COMP_CWORD == 1)); then\n        _{name}_candidates -W \"\n{}\"\n        \
                 return\n    fi\n",
                wrapped(&words, 12)
            );
        }
        for command in self.commands.iter().filter(|command| command.runs_a_command()) {
            let word = command.word;
            text += &format!(
                "    if [[ $word == {word} ]] && _{name}_has_command {word}; then\n        \
                 COMPREPLY=()\n        return\n    fi\n"
            );
        }
        text += &format!(
            "    if [[ $cur == \"=\" ]]; then\n        cur=\n    elif [[ $option == \"=\" ]] && \
             ((COMP_CWORD >= 2)); then\n        option=${{COMP_WORDS[COMP_CWORD - 2]}}\n    fi\n\
             \x20   _{name}_value \"$word\" \"$option\" && return\n    if [[ $cur == -* ]]; then\n\
             \x20       _{name}_options \"$word\"\n    else\n        _{name}_operand \"$word\" \
             \"$COMP_CWORD\"\n    fi\n}}\n\ncomplete -o bashdefault -o \
             default -F _{name} {name}\n"
        );
        text
    }

    /// The completion of fish.
    pub(crate) fn fish(&self) -> String {
        let name = self.name;
        let place = format!("/usr/share/fish/vendor_completions.d/{name}.fish");
        let mut text = self.head("fish", &place) + "\n";
        if self.has_words() {
            for command in &self.commands {
                text += &format!(
                    "complete -c {name} -n __fish_use_subcommand -f -a {} -d {}\n",
                    command.word,
                    quoted(command.about)
                );
            }
        }
        for command in &self.commands {
            let condition = if command.word.is_empty() {
                String::new()
            } else {
                format!(" -n '__fish_seen_subcommand_from {}'", command.word)
            };
            let to = format!("complete -c {name}{condition}");
            text.push('\n');
            match command.operands {
                Operands::Guest => {
                    text += "# What the first argument is depends on --netns-type.\nfunction \
                             __slirp4netns_wants_path\n    string match -qr -- \
                             '--(netns-type[= ]path|target-type[= ]bess)' (commandline -cp)\nend\n\
                             \ncomplete -c slirp4netns -n 'not __slirp4netns_wants_path' -f -a \
                             '(__fish_complete_pids)'\ncomplete -c slirp4netns -n \
                             __slirp4netns_wants_path -F\n";
                }
                Operands::Of(subwords, offers) => {
                    let words = subwords.join(" ");
                    let words =
                        if words.is_empty() { words } else { format!(" -a {}", quoted(&words)) };
                    let of = match offers {
                        Offers::Files => " -F".to_owned(),
                        Offers::Command => command.fish_subcommand(),
                        Offers::Processes => " -f -a '(__fish_complete_pids)'".to_owned(),
                        Offers::Nothing | Offers::Words(_) | Offers::Interfaces => " -f".to_owned(),
                    };
                    text += &format!("{to}{of}{words}\n");
                }
            }
            for flag in &command.flags {
                let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
                let value = match (flag.value, flag.offers) {
                    (Value::None, _) => String::new(),
                    (Value::Optional(_), _) => " -f".to_owned(),
                    (Value::Needed(_), Offers::Files) => " -r -F".to_owned(),
                    (Value::Needed(_), Offers::Words(words)) => {
                        format!(" -x -a {}", quoted(&words.join(" ")))
                    }
                    (Value::Needed(_), Offers::Interfaces) => {
                        " -x -a '(__fish_print_interfaces)'".to_owned()
                    }
                    (Value::Needed(_), Offers::Processes) => {
                        " -x -a '(__fish_complete_pids)'".to_owned()
                    }
                    (Value::Needed(_), Offers::Nothing | Offers::Command) => " -x".to_owned(),
                };
                let about = quoted(flag.about);
                text += &format!("{to}{short} -l {}{value} \\\n    -d {about}\n", flag.long);
            }
        }
        text
    }

    /// The completion of zsh.
    pub(crate) fn zsh(&self) -> String {
        let name = self.name;
        let place = format!("/usr/share/zsh/vendor-completions/_{name}");
        let mut text = format!("#compdef {name}\n") + &self.head("zsh", &place);
        if let [command] = self.commands.as_slice()
            && command.word.is_empty()
        {
            if command.operands == Operands::Guest {
                text += &format!(
                    "\n# What the first argument is depends on --netns-type.\n_{name}_target() \
                     {{\n    if [[ \"${{words[*]}}\" == *--(netns-type[=\\ ]path|\
                     target-type[=\\ ]bess)* ]]; then\n        _files\n    else\n        \
                     _pids\n    fi\n}}\n\n"
                );
            }
            text += &zsh_arguments(command, 0);
            return text;
        }
        text += &format!("\n_{name}_words() {{\n    local -a words\n    words=(\n");
        for command in &self.commands {
            let about = command.about.replace('\'', "'\\''").replace(':', "\\:");
            text += &format!("        '{}:{about}'\n", command.word);
        }
        text += &format!(
            "    )\n    _describe word words\n}}\n\nlocal state line\n_arguments -C \
             '1:word:_{name}_words' '*::argument:->rest'\n[[ $state == rest ]] || return\ncase \
             $words[1] in\n"
        );
        for command in &self.commands {
            text += &format!("{})\n{}    ;;\n", command.word, zsh_arguments(command, 4));
        }
        text + "esac\n"
    }
}

/// For bash: behind a command nothing is ours, and the shell completes files.
const HAS_COMMAND: &str = "\
# Whether a command stands before the word that is completed.
_NAME_has_command() {
    local at=2 it is_value=
    while ((at < COMP_CWORD)); do
        it=${COMP_WORDS[at]}
        ((at += 1))
        if [[ $it == \"=\" ]]; then
            is_value=1
        elif [[ $is_value ]]; then
            is_value=
        elif [[ $it == -- ]]; then
            ((at < COMP_CWORD))
            return
        elif [[ $it != -* ]]; then
            return 0
        elif _NAME_value \"$1\" \"$it\"; then
            is_value=1
        fi
    done
    return 1
}
";

impl Command {
    fn runs_a_command(&self) -> bool {
        self.operands == Operands::Of(&[], Offers::Command)
    }

    /// Completes the command behind the program's name, the word and the options.
    fn fish_subcommand(&self) -> String {
        let mut skipped = String::new();
        for flag in self.flags.iter().filter(|flag| matches!(flag.value, Value::Needed(_))) {
            skipped.extend(flag.short.map(|short| format!(" -{short}")));
            skipped += &format!(" --{}", flag.long);
        }
        let words = if self.word.is_empty() { 1 } else { 2 };
        format!(" -f -a '(__fish_complete_subcommand --fcs-skip={words}{skipped})'")
    }
}

fn bash_offers(name: &str, offers: Offers) -> String {
    match offers {
        Offers::Nothing => ":".to_owned(),
        Offers::Words(words) => format!("_{name}_candidates -W \"{}\"", words.join(" ")),
        Offers::Files => format!("_{name}_files"),
        Offers::Interfaces => {
            format!("_{name}_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)'")
        }
        Offers::Processes => format!("_{name}_candidates -W '$(cd /proc && echo [0-9]*)'"),
        Offers::Command => format!("_{name}_candidates -c"),
    }
}

fn zsh_arguments(command: &Command, indent: usize) -> String {
    let indent = " ".repeat(indent);
    let stop = if command.operands == Operands::Of(&[], Offers::Command) { " -A '-*'" } else { "" };
    let mut text = format!("{indent}_arguments -s -S{stop}");
    for flag in &command.flags {
        let long = flag.long;
        let about = zsh_text(flag.about).replace('[', "\\[").replace(']', "\\]");
        let value = match (flag.value, flag.offers) {
            (Value::None | Value::Optional(_), _) => String::new(),
            (Value::Needed(what), offers) => {
                let what = zsh_text(what);
                let action = match offers {
                    Offers::Nothing => String::new(),
                    Offers::Words(words) => format!("({})", zsh_text(&words.join(" "))),
                    Offers::Files => "_files".to_owned(),
                    Offers::Interfaces => "_net_interfaces".to_owned(),
                    Offers::Processes => "_pids".to_owned(),
                    Offers::Command => "_command_names -e".to_owned(),
                };
                format!(":{what}:{action}")
            }
        };
        let equals = if value.is_empty() { "" } else { "=" };
        let plus = if value.is_empty() { "" } else { "+" };
        let spec = match flag.short {
            _ if long == "help" || long == "version" => {
                let names = flag.short.map(|short| format!("{{-{short},--{long}}}"));
                let names = names.unwrap_or_else(|| format!("--{long}"));
                format!("'(- *)'{names}'[{about}]'")
            }
            Some(short) if flag.is_repeatable => {
                format!("'*'{{-{short}{plus},--{long}{equals}}}'[{about}]{value}'")
            }
            Some(short) => format!(
                "'(-{short} --{long})'{{-{short}{plus},--{long}{equals}}}'[{about}]{value}'"
            ),
            None if flag.is_repeatable => {
                format!("'*--{long}{equals}[{about}]{value}'")
            }
            None => format!("'--{long}{equals}[{about}]{value}'"),
        };
        text += &format!(" \\\n{indent}    {spec}");
    }
    match command.operands {
        Operands::Guest => {
            text += &format!(
                " \\\n{indent}    '1:process, path or descriptor:_slirp4netns_target' \\\n\
                 {indent}    '2:name of the tap:(tap0)'"
            );
        }
        Operands::Of(subwords, offers) => {
            if !subwords.is_empty() {
                text += &format!(" \\\n{indent}    '1:word:({})'", subwords.join(" "));
            }
            let rest = match offers {
                Offers::Files => "*:file:_files",
                Offers::Command => "*::command:_normal",
                Offers::Processes => "*:process:_pids",
                Offers::Nothing | Offers::Words(_) | Offers::Interfaces => "*:name:",
            };
            text += &format!(" \\\n{indent}    '{rest}'");
        }
    }
    text + "\n"
}

/// In the single quotes of an argument of `_arguments`.
fn zsh_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "'\\''").replace(':', "\\:")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn wrapped(words: &[String], indent: usize) -> String {
    let mut text = String::new();
    let mut column = 100;
    for word in words {
        if column + 1 + word.len() > 96 {
            if !text.is_empty() {
                text.push('\n');
            }
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text
}

/// Compares `made` with a file of this package, or writes it where `SLIRP_RENEW=1`.
pub(crate) fn compare(file: &str, made: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("SLIRP_RENEW").is_some_and(|value| value == "1") {
        std::fs::write(&path, made).expect("the package's own file can be written");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "{file}, which SLIRP_RENEW=1 cargo test -p slirp-cli --lib renews: {differs:?}"
    );
}

#[cfg(all(test, feature = "tui"))]
mod tests {
    use super::*;
    use crate::words::words;

    fn slirp() -> Program {
        let help = Flag::switch("help", "print the text of --help").or('h');
        let commands = words().map(|word| Command {
            word: word.name,
            about: word.about,
            flags: word.flags().copied().chain([help]).collect(),
            operands: Operands::Of(word.subwords, word.operands),
        });
        Program { name: "slirp", commands: commands.collect() }
    }

    #[test]
    fn completions_are_made_from_the_table() {
        let slirp = slirp();
        compare("completions/slirp.bash", &slirp.bash());
        compare("completions/slirp.fish", &slirp.fish());
        compare("completions/_slirp", &slirp.zsh());
    }
}
