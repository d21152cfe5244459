# bash completion for pesto(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/bash-completion/completions/pesto.

_pesto_candidates() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_pesto_files() {
    compopt -o filenames 2>/dev/null
    _pesto_candidates -f
}

# What is given for an option that wants a value, as the word and the option. `=` is a word of its
# own in COMP_WORDS.
_pesto_value() {
    case "$1 $2" in
    " -C" | " --clear") _pesto_candidates -W "HOST SPLICE" ;;
    " -t" | " --tcp-ports") _pesto_candidates -W "all auto" ;;
    " -u" | " --udp-ports") _pesto_candidates -W "all auto" ;;
    " -T" | " --tcp-ns") _pesto_candidates -W "all auto" ;;
    " -U" | " --udp-ns") _pesto_candidates -W "all auto" ;;
    *) return 1 ;;
    esac
}

_pesto_options() {
    case $1 in
    "")
        _pesto_candidates -W "
            -A --add -D --delete -C --clear= -t --tcp-ports= -u --udp-ports= -T --tcp-ns= -U
            --udp-ns= -s --show -h --help --version"
        ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}

_pesto_operand() {
    case $1 in
    "") _pesto_files ;;
    esac
}

_pesto() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word=
    COMPREPLY=()
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $option == "=" ]] && ((COMP_CWORD >= 2)); then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    _pesto_value "$word" "$option" && return
    if [[ $cur == -* ]]; then
        _pesto_options "$word"
    else
        _pesto_operand "$word" "$COMP_CWORD"
    fi
}

complete -o bashdefault -o default -F _pesto pesto
