# bash completion for slirp4netns(1). Needs no other file.
#
# Install as /usr/share/bash-completion/completions/slirp4netns.

_slirp4netns_candidates() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

# What is given for an option that wants a value. `=` is a word of its own in COMP_WORDS.
_slirp4netns_value() {
    case $1 in
    --netns-type) _slirp4netns_candidates -W "pid path tapfd" ;;
    --target-type) _slirp4netns_candidates -W "netns bess" ;;
    --log-level) _slirp4netns_candidates -W "error warn info debug trace" ;;
    --busy-poll) _slirp4netns_candidates -W "0 20" ;;
    --policy-mode) _slirp4netns_candidates -W "enforce audit" ;;
    --audit) _slirp4netns_candidates -W "denied decisions all" ;;
    --rate-in | --rate-out) _slirp4netns_candidates -W "1M 10M 100M 1G" ;;
    --metrics) _slirp4netns_candidates -W "unix: 127.0.0.1:9100" ;;
    --allow | --deny | --ask)
        _slirp4netns_candidates -W "any internet private host-loopback link-local metadata multicast dns"
        ;;
    -m | --mtu) _slirp4netns_candidates -W "1500 65520" ;;
    --outbound-addr | --outbound-addr6)
        _slirp4netns_candidates -W "$(cd /sys/class/net 2>/dev/null && echo *)"
        ;;
    -a | --api-socket | --userns-path | --pcap | --policy | --audit-log | --control-socket)
        compopt -o filenames 2>/dev/null
        _slirp4netns_candidates -f
        ;;
    -e | --exit-fd | -r | --ready-fd | --cidr | --cidr6 | --macaddress | --publish | --dns | \
        --search-domain | --control-fd) ;;
    *) return 1 ;;
    esac
}

_slirp4netns() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $option == "=" ]] && ((COMP_CWORD >= 2)); then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    _slirp4netns_value "$option" && return
    if [[ $cur == -* ]]; then
        _slirp4netns_candidates -W "
            -c --configure -e --exit-fd= -r --ready-fd= -m --mtu= -6 --enable-ipv6
            -a --api-socket= --cidr= --disable-host-loopback --netns-type= --userns-path=
            --enable-sandbox --enable-seccomp --outbound-addr= --outbound-addr6= --disable-dns
            --macaddress= --target-type= --cidr6= --publish= --dns= --search-domain= --log-level=
            --pcap= --exit-with-netns --busy-poll= --allow= --deny= --ask= --policy= --policy-mode=
            --audit-log= --audit= --audit-required --control-socket= --control-fd= --rate-in=
            --rate-out= --metrics= --metrics-members
            -h --help -v --version"
        [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        return
    fi
    case " ${COMP_WORDS[*]} " in
    *" --netns-type = path "* | *" --netns-type path "* | \
        *" --target-type = bess "* | *" --target-type bess "*)
        compopt -o filenames 2>/dev/null
        _slirp4netns_candidates -f
        ;;
    *) _slirp4netns_candidates -W "$(cd /proc && echo [0-9]*) tap0" ;;
    esac
}

complete -F _slirp4netns slirp4netns
