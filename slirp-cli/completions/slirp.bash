# bash completion for slirp(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/bash-completion/completions/slirp.

_slirp_candidates() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_slirp_files() {
    compopt -o filenames 2>/dev/null
    _slirp_candidates -f
}

# What is given for an option that wants a value, as the word and the option. `=` is a word of its
# own in COMP_WORDS.
_slirp_value() {
    case "$1 $2" in
    "run -p" | "run --publish") : ;;
    "run --dns") : ;;
    "run --search-domain") : ;;
    "run --mtu") _slirp_candidates -W "1500 65520" ;;
    "run --cidr") : ;;
    "run --cidr6") : ;;
    "run --outbound-addr") _slirp_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    "run --outbound-addr6") _slirp_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    "run --rate-in") _slirp_candidates -W "1M 10M 100M 1G" ;;
    "run --rate-out") _slirp_candidates -W "1M 10M 100M 1G" ;;
    "run --allow") _slirp_candidates -W "any internet private host-loopback link-local metadata multicast dns" ;;
    "run --deny") _slirp_candidates -W "any internet private host-loopback link-local metadata multicast dns" ;;
    "run --ask") _slirp_candidates -W "any internet private host-loopback link-local metadata multicast dns" ;;
    "run --policy") _slirp_files ;;
    "run --policy-mode") _slirp_candidates -W "enforce audit" ;;
    "run --control-socket") _slirp_files ;;
    "run --pcap") _slirp_files ;;
    "run --audit-log") _slirp_files ;;
    "run --audit") _slirp_candidates -W "denied decisions all" ;;
    "run --metrics") _slirp_candidates -W "unix: 127.0.0.1:9100" ;;
    "run --log-level") _slirp_candidates -W "error warn info debug trace" ;;
    "run --net-of") _slirp_candidates -W '$(cd /proc && echo [0-9]*)' ;;
    "learn --against") _slirp_files ;;
    "learn --min") : ;;
    "learn --since") : ;;
    "approve --save") _slirp_files ;;
    "ls --state-dir") _slirp_files ;;
    "rm --state-dir") _slirp_files ;;
    "oci-hook --ports") : ;;
    "oci-hook --mtu") : ;;
    "oci-hook --cidr") : ;;
    "oci-hook --ifname") : ;;
    "oci-hook --mac") : ;;
    "oci-hook --policy") : ;;
    "oci-hook --rate-in") : ;;
    "oci-hook --rate-out") : ;;
    "oci-hook --policy-file") _slirp_files ;;
    "oci-hook --audit-log") _slirp_files ;;
    "oci-hook --audit") _slirp_candidates -W "denied decisions all" ;;
    "oci-hook --control-socket") _slirp_files ;;
    "oci-hook --metrics") : ;;
    "oci-hook --log-file") _slirp_files ;;
    "oci-hook --state-dir") _slirp_files ;;
    *) return 1 ;;
    esac
}

_slirp_options() {
    case $1 in
    run)
        _slirp_candidates -W "
            -p --publish= --host-loopback --no-ipv6 --ipv6 --dns= --no-dns --search-domain=
            --mtu= --cidr= --cidr6= --outbound-addr= --outbound-addr6= --rate-in= --rate-out=
            --allow= --deny= --ask= --policy= --policy-mode= --control-socket= --pcap=
            --audit-log= --audit= --audit-required --metrics= --log-level= --map-root --net-of=
            --no-sandbox --no-seccomp -h --help"
        ;;
    doctor)
        _slirp_candidates -W "
            --json --no-drive -h --help"
        ;;
    policy)
        _slirp_candidates -W "
            --canonical -h --help"
        ;;
    learn)
        _slirp_candidates -W "
            --against= --min= --since= -h --help"
        ;;
    approve)
        _slirp_candidates -W "
            --save= -h --help"
        ;;
    events)
        _slirp_candidates -W "
            --json -h --help"
        ;;
    top)
        _slirp_candidates -W "
            --once --json -h --help"
        ;;
    ls)
        _slirp_candidates -W "
            --json --state-dir= -h --help"
        ;;
    rm)
        _slirp_candidates -W "
            --state-dir= -h --help"
        ;;
    oci-hook)
        _slirp_candidates -W "
            --ports= --mtu= --cidr= --ipv6 --ifname= --dns --mac= --disable-host-loopback
            --attach-shared --policy= --rate-in= --rate-out= --policy-file= --audit-log=
            --audit= --audit-required --control-socket= --metrics= --sandbox --log-file=
            --state-dir= -h --help"
        ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}

_slirp_operand() {
    case $1 in
    run) _slirp_candidates -c ;;
    doctor) : ;;
    policy)
        if (($2 == 2)); then
            _slirp_candidates -W "check explain"
        else
            _slirp_files
        fi
        ;;
    learn) _slirp_files ;;
    approve) _slirp_files ;;
    events) _slirp_files ;;
    top) _slirp_files ;;
    ls) : ;;
    rm) : ;;
    oci-hook)
        if (($2 == 2)); then
            _slirp_candidates -W "up down"
        else
            :
        fi
        ;;
    esac
}

# Whether a command stands before the word that is completed.
_slirp_has_command() {
    local at=2 it is_value=
    while ((at < COMP_CWORD)); do
        it=${COMP_WORDS[at]}
        ((at += 1))
        if [[ $it == "=" ]]; then
            is_value=1
        elif [[ $is_value ]]; then
            is_value=
        elif [[ $it == -- ]]; then
            ((at < COMP_CWORD))
            return
        elif [[ $it != -* ]]; then
            return 0
        elif _slirp_value "$1" "$it"; then
            is_value=1
        fi
    done
    return 1
}

_slirp() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word=${COMP_WORDS[1]}
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _slirp_candidates -W "
            run doctor policy learn approve events top ls rm oci-hook"
        return
    fi
    if [[ $word == run ]] && _slirp_has_command run; then
        COMPREPLY=()
        return
    fi
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $option == "=" ]] && ((COMP_CWORD >= 2)); then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    _slirp_value "$word" "$option" && return
    if [[ $cur == -* ]]; then
        _slirp_options "$word"
    else
        _slirp_operand "$word" "$COMP_CWORD"
    fi
}

complete -o bashdefault -o default -F _slirp slirp
