# bash completion for slirp4netns(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/bash-completion/completions/slirp4netns.

_slirp4netns_candidates() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_slirp4netns_files() {
    compopt -o filenames 2>/dev/null
    _slirp4netns_candidates -f
}

# What is given for an option that wants a value, as the word and the option. `=` is a word of its
# own in COMP_WORDS.
_slirp4netns_value() {
    case "$1 $2" in
    " -e" | " --exit-fd") : ;;
    " -r" | " --ready-fd") : ;;
    " -m" | " --mtu") _slirp4netns_candidates -W "1500 65520" ;;
    " -a" | " --api-socket") _slirp4netns_files ;;
    " --cidr") : ;;
    " --netns-type") _slirp4netns_candidates -W "pid path tapfd" ;;
    " --userns-path") _slirp4netns_files ;;
    " --outbound-addr") _slirp4netns_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " --outbound-addr6") _slirp4netns_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " --macaddress") : ;;
    " --target-type") _slirp4netns_candidates -W "netns bess stream" ;;
    " --cidr6") : ;;
    " --publish") : ;;
    " --dns") : ;;
    " --search-domain") : ;;
    " --log-level") _slirp4netns_candidates -W "error warn info debug trace" ;;
    " --pcap") _slirp4netns_files ;;
    " --busy-poll") _slirp4netns_candidates -W "0 20" ;;
    " --allow") _slirp4netns_candidates -W "any internet private host-loopback link-local metadata multicast dns" ;;
    " --deny") _slirp4netns_candidates -W "any internet private host-loopback link-local metadata multicast dns" ;;
    " --ask") _slirp4netns_candidates -W "any internet private host-loopback link-local metadata multicast dns" ;;
    " --policy") _slirp4netns_files ;;
    " --policy-mode") _slirp4netns_candidates -W "enforce audit" ;;
    " --audit-log") _slirp4netns_files ;;
    " --audit") _slirp4netns_candidates -W "denied decisions all" ;;
    " --control-socket") _slirp4netns_files ;;
    " --control-fd") : ;;
    " --rate-in") _slirp4netns_candidates -W "1M 10M 100M 1G" ;;
    " --rate-out") _slirp4netns_candidates -W "1M 10M 100M 1G" ;;
    " --metrics") _slirp4netns_candidates -W "unix: 127.0.0.1:9100" ;;
    *) return 1 ;;
    esac
}

_slirp4netns_options() {
    case $1 in
    "")
        _slirp4netns_candidates -W "
            -c --configure -e --exit-fd= -r --ready-fd= -m --mtu= -6 --enable-ipv6 -a
            --api-socket= --cidr= --disable-host-loopback --netns-type= --userns-path=
            --enable-sandbox --enable-seccomp --outbound-addr= --outbound-addr6= --disable-dns
            --macaddress= --target-type= -h --help -v --version --cidr6= --publish= --dns=
            --search-domain= --log-level= --pcap= --exit-with-netns --busy-poll= --allow=
            --deny= --ask= --policy= --policy-mode= --audit-log= --audit= --audit-required
            --control-socket= --control-fd= --rate-in= --rate-out= --metrics= --metrics-members"
        ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}

_slirp4netns_operand() {
    case $1 in
    "")
        case " ${COMP_WORDS[*]} " in
        *" --netns-type = path "* | *" --netns-type path "* | \
            *" --target-type = "[bs]* | *" --target-type "[bs]*)
            _slirp4netns_files
            ;;
        *) _slirp4netns_candidates -W '$(cd /proc && echo [0-9]*) tap0' ;;
        esac
        ;;
    esac
}

_slirp4netns() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word=
    COMPREPLY=()
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $option == "=" ]] && ((COMP_CWORD >= 2)); then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    _slirp4netns_value "$word" "$option" && return
    if [[ $cur == -* ]]; then
        _slirp4netns_options "$word"
    else
        _slirp4netns_operand "$word" "$COMP_CWORD"
    fi
}

complete -o bashdefault -o default -F _slirp4netns slirp4netns
