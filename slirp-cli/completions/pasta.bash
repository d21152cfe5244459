# bash completion for pasta(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/bash-completion/completions/pasta.

_pasta_candidates() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_pasta_files() {
    compopt -o filenames 2>/dev/null
    _pasta_candidates -f
}

# What is given for an option that wants a value, as the word and the option. `=` is a word of its
# own in COMP_WORDS.
_pasta_value() {
    case "$1 $2" in
    " -l" | " --log-file") _pasta_files ;;
    " --log-size") : ;;
    " --runas") : ;;
    " -c" | " --conf-path") _pasta_files ;;
    " -p" | " --pcap") _pasta_files ;;
    " -P" | " --pid") _pasta_files ;;
    " -m" | " --mtu") _pasta_candidates -W "1500 65520" ;;
    " -a" | " --address") : ;;
    " -n" | " --netmask") : ;;
    " -M" | " --mac-addr") : ;;
    " -g" | " --gateway") : ;;
    " -i" | " --interface") _pasta_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " -o" | " --outbound") : ;;
    " --outbound-if4") _pasta_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " --outbound-if6") _pasta_candidates -W '$(cd /sys/class/net 2>/dev/null && echo *)' ;;
    " -D" | " --dns") _pasta_candidates -W "none" ;;
    " -S" | " --search") _pasta_candidates -W "none" ;;
    " --dns-forward") : ;;
    " --dns-host") : ;;
    " -H" | " --hostname") : ;;
    " --fqdn") : ;;
    " --map-host-loopback") _pasta_candidates -W "none" ;;
    " --map-guest-addr") _pasta_candidates -W "none" ;;
    " -t" | " --tcp-ports") _pasta_candidates -W "none auto all" ;;
    " -u" | " --udp-ports") _pasta_candidates -W "none auto all" ;;
    " -T" | " --tcp-ns") _pasta_candidates -W "none auto all" ;;
    " -U" | " --udp-ns") _pasta_candidates -W "none auto all" ;;
    " -I" | " --ns-ifname") : ;;
    " --ns-mac-addr") : ;;
    " --userns") _pasta_files ;;
    " --netns") _pasta_files ;;
    *) return 1 ;;
    esac
}

_pasta_options() {
    case $1 in
    "")
        _pasta_candidates -W "
            --config-net -d --debug --trace -q --quiet -f --foreground -l --log-file=
            --log-size= --runas= -c --conf-path= -h --help --version -p --pcap= -P --pid= -m
            --mtu= -a --address= -n --netmask= -M --mac-addr= -g --gateway= -i --interface= -o
            --outbound= --outbound-if4= --outbound-if6= -D --dns= -S --search= --dhcp-dns
            --dhcp-search --dns-forward= --dns-host= -H --hostname= --fqdn= --no-tcp --no-udp
            --no-icmp --no-dhcp --no-ndp --no-dhcpv6 --no-ra --freebind --map-host-loopback=
            --no-map-gw --map-guest-addr= -4 --ipv4-only -6 --ipv6-only -t --tcp-ports= -u
            --udp-ports= -T --tcp-ns= -U --udp-ns= -I --ns-ifname= --ns-mac-addr= --userns=
            --netns= --netns-only --no-netns-quit --host-lo-to-ns-lo --no-splice --splice-only"
        ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}

_pasta_operand() {
    case $1 in
    "") _pasta_candidates -c ;;
    esac
}

# Whether a command stands before the word that is completed.
_pasta_has_command() {
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
        elif _pasta_value "$1" "$it"; then
            is_value=1
        fi
    done
    return 1
}

_pasta() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} word=
    COMPREPLY=()
    if [[ $word ==  ]] && _pasta_has_command ; then
        COMPREPLY=()
        return
    fi
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $option == "=" ]] && ((COMP_CWORD >= 2)); then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    _pasta_value "$word" "$option" && return
    if [[ $cur == -* ]]; then
        _pasta_options "$word"
    else
        _pasta_operand "$word" "$COMP_CWORD"
    fi
}

complete -o bashdefault -o default -F _pasta pasta
