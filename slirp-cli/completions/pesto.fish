# fish completion for pesto(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/fish/vendor_completions.d/pesto.fish.


complete -c pesto -F
complete -c pesto -s A -l add \
    -d 'add the ports that follow (the default)'
complete -c pesto -s D -l delete \
    -d 'delete the ports that follow'
complete -c pesto -s C -l clear -x -a 'HOST SPLICE' \
    -d 'delete all ports of HOST (-t, -u) or SPLICE (-T, -U)'
complete -c pesto -s t -l tcp-ports -x -a 'all auto' \
    -d 'TCP ports of the host that lead to the guest (repeatable)'
complete -c pesto -s u -l udp-ports -x -a 'all auto' \
    -d 'UDP ports of the host that lead to the guest (repeatable)'
complete -c pesto -s T -l tcp-ns -x -a 'all auto' \
    -d 'TCP ports of the guest\'s 127.0.0.1 that lead to the host\'s (repeatable)'
complete -c pesto -s U -l udp-ns -x -a 'all auto' \
    -d 'UDP ports of the guest\'s 127.0.0.1 that lead to the host\'s (repeatable)'
complete -c pesto -s s -l show \
    -d 'print the rules in force, after a change if there is one'
complete -c pesto -s h -l help \
    -d 'print this text and end'
complete -c pesto -l version \
    -d 'print the version and end'
