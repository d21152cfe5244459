# bash completion for passt(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/bash-completion/completions/passt.

_passt_candidates() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_passt_files() {
    compopt -o filenames 2>/dev/null
    _passt_candidates -f
}

# What is given for an option that wants a value, as the word and the option. `=` is a word of its
# own in COMP_WORDS.
_passt_value() {
    case "$1 $2" in
    " -l" | " --log-file") _passt_files ;;
    " --log-size") : ;;
    " --runas") : ;;
    " -c" | " --conf-path") _passt_files ;;
    " -p" | " --pcap") _passt_files ;;
    " -P" | " --pid") _passt_files ;;
    " -m" | " --mtu") _passt_candidates -W "1500 65520" ;;
    " -a" | " --address") : ;;
    " -n" | " --netmask") : ;;
    " -M" | " --mac-addr") : ;;
    " -g" | " --gateway") : ;;
    " -i" | " --interface") _passt_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " -o" | " --outbound") : ;;
    " --outbound-if4") _passt_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " --outbound-if6") _passt_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " -D" | " --dns") _passt_candidates -W "none" ;;
    " -S" | " --search") _passt_candidates -W "none" ;;
    " --dns-forward") : ;;
    " --dns-host") : ;;
    " -H" | " --hostname") : ;;
    " --fqdn") : ;;
    " --map-host-loopback") _passt_candidates -W "none" ;;
    " --map-guest-addr") _passt_candidates -W "none" ;;
    " -t" | " --tcp-ports") _passt_candidates -W "none auto all" ;;
    " -u" | " --udp-ports") _passt_candidates -W "none auto all" ;;
    " -F" | " --fd") : ;;
    " -s" | " --socket") _passt_files ;;
    *) return 1 ;;
    esac
}

_passt_options() {
    case $1 in
    "")
        _passt_candidates -W "
            -d --debug --trace -q --quiet -f --foreground -l --log-file= --log-size= --runas= -c
            --conf-path= -h --help --version -p --pcap= -P --pid= -m --mtu= -a --address= -n
            --netmask= -M --mac-addr= -g --gateway= -i --interface= -o --outbound=
            --outbound-if4= --outbound-if6= -D --dns= -S --search= --dns-forward= --dns-host= -H
            --hostname= --fqdn= --no-tcp --no-udp --no-icmp --no-dhcp --no-ndp --no-dhcpv6
            --no-ra --freebind --map-host-loopback= --no-map-gw --map-guest-addr= -4 --ipv4-only
            -6 --ipv6-only -t --tcp-ports= -u --udp-ports= -F --fd= -s --socket= -1 --one-off
            --no-dhcp-dns --no-dhcp-search"
        ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}

_passt_operand() {
    case $1 in
    "") : ;;
    esac
}

_passt() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word=
    COMPREPLY=()
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $option == "=" ]] && ((COMP_CWORD >= 2)); then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    _passt_value "$word" "$option" && return
    if [[ $cur == -* ]]; then
        _passt_options "$word"
    else
        _passt_operand "$word" "$COMP_CWORD"
    fi
}

complete -o bashdefault -o default -F _passt passt
