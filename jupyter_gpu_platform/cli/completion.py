"""``jupyter gpu completion``: the script by which a shell completes our lines, and what it asks.

Each script calls ``jupyter-gpu completion --line …`` or ``--words …`` and gets one candidate a line, with a tab and
its description behind it, or one line that begins with a colon: what the shell is to complete by itself.
"""

from __future__ import annotations

from .arguments import Parser

BASH = r"""# bash completion of `jupyter gpu` and `jupyter-gpu`
if [[ $(complete -p jupyter 2>/dev/null) != *" _jupyter_gpu "* ]]; then
    _jupyter_gpu_before=$(complete -p jupyter 2>/dev/null | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
fi
_jupyter_gpu() {
    local gpu=("${COMP_WORDS[0]/#\~/$HOME}") line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]}
    local answer candidate cut
    if [[ ${gpu##*/} == jupyter ]]; then
        if [[ $COMP_CWORD -lt 2 || ${COMP_WORDS[1]} != gpu ]]; then
            if [[ -n $_jupyter_gpu_before ]]; then "$_jupyter_gpu_before" "$@"; else compopt -o default; fi
            return
        fi
        gpu+=(gpu)
    fi
    mapfile -t answer < <("${gpu[@]}" completion --line "$line" 2>/dev/null)
    [[ $current == [=:] ]] && current=
    COMPREPLY=()
    case ${answer[0]} in
        :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        :dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        :command) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -c -- "$current") ;;
        *)
            # bash takes --option=value for three words: what stands before the last one is there already.
            line=${line##*[[:space:]]} cut=${line%"$current"}
            for candidate in "${answer[@]%%$'\t'*}"; do COMPREPLY+=("${candidate#"$cut"}"); done
            ;;
    esac
}
complete -F _jupyter_gpu jupyter-gpu jupyter
"""

ZSH = r"""#compdef jupyter-gpu
# zsh completion of `jupyter gpu` and `jupyter-gpu`
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_jupyter_gpu() {
    local -a gpu answer candidates
    local line
    integer first=2
    gpu=("${(Q)words[1]/#\~/$HOME}")
    if [[ ${words[1]:t} == jupyter ]]; then
        if (( CURRENT < 3 )) || [[ $words[2] != gpu ]]; then
            ${_jupyter_gpu_before:-_default} "$@"
            return
        fi
        gpu+=(gpu)
        first=3
    fi
    answer=("${(@f)$("${gpu[@]}" completion --words "${(@Q)words[first,CURRENT]}" 2>/dev/null)}")
    case $answer[1] in
        '') return 1 ;;
        :files) compset -P '--*='; _files ;;
        :dirs) compset -P '--*='; _files -/ ;;
        :command) _command_names -e ;;
        *)
            for line in $answer; do candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}"); done
            _describe -V 'jupyter gpu' candidates
            ;;
    esac
}
[[ $_comps[jupyter] == _jupyter_gpu ]] || _jupyter_gpu_before=$_comps[jupyter]
compdef _jupyter_gpu jupyter-gpu jupyter
"""

FISH = r"""# fish completion of `jupyter gpu` and `jupyter-gpu`
function __jupyter_gpu
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l gpu (string replace -r '^~' $HOME -- $words[1])
    set -l rest $words[2..-1]
    if test (basename -- $words[1]) = jupyter
        set gpu $gpu gpu
        set rest $words[3..-1]
    end
    set -l answer ($gpu completion --words $rest "$current" 2>/dev/null)
    set -l before (string match -r -- '^--[^=]*=' "$current")
    set -l value (string replace -r -- '^--[^=]*=' '' "$current")
    switch "$answer[1]"
        case :files
            printf "$before%s\n" (__fish_complete_path "$value")
        case :dirs
            printf "$before%s\n" (__fish_complete_directories "$value")
        case :command
            __fish_complete_command
        case '*'
            printf '%s\n' $answer
    end
end
function __jupyter_gpu_begun
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = gpu
end
complete -c jupyter-gpu -f -k -a '(__jupyter_gpu)'
complete -c jupyter -n __jupyter_gpu_begun -f -k -a '(__jupyter_gpu)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def parser() -> Parser:
    made = Parser(
        "completion",
        "Print a script that makes a shell complete commands, options, ids of jobs, names of clusters and GPU models. "
        "It asks a platform that runs and starts none.",
        examples="""
            source <(jupyter-gpu completion bash)          # now; or this line in ~/.bashrc
            source <(jupyter-gpu completion zsh)           # now; or this line in ~/.zshrc, after compinit
            jupyter-gpu completion fish | source           # now; or this line in ~/.config/fish/config.fish
        """,
    )
    made.add_argument("shell", choices=list(SCRIPTS), help="the shell")
    return made


def main(argv: list[str]) -> int:
    if argv[:1] in (["--line"], ["--words"]):
        return _answer(argv[0], argv[1:])
    print(SCRIPTS[parser().parse_args(argv).shell], end="")
    return 0


def _answer(form: str, words: list[str]) -> int:
    # Imported here: it needs the commands.
    from . import completing

    for found in completing.candidates(completing.words_of(words[0]) if form == "--line" else words):
        print(f"{found.text}\t{found.about}" if found.text[0] != ":" else found.text)
    return 0
