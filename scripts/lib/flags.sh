# Sourced by scripts: flags that set variables, and errors. The script defines `usage`.

# fail WORDS...: an error of the user's
fail() {
  echo "error: $*" >&2
  exit 2
}

# parse_flags VALUES SWITCHES ARGUMENTS...: a variable of its name for every flag, empty where it is not given. VALUES
# and SWITCHES are lists of names; a switch that is given is true. Other arguments are an error.
parse_flags() {
  take_flags "$@"
  if ((${#others[@]})); then
    usage >&2
    fail "unknown argument ${others[0]}"
  fi
}

# take_flags VALUES SWITCHES ARGUMENTS...: the same, but other arguments go into the array `others`, and all behind a --
take_flags() {
  local values="$1" switches="$2" name
  shift 2
  for name in $values $switches; do declare -g "$name="; done
  others=()
  while (($#)); do
    name="${1#--}"
    if [[ "$1" == --help || "$1" == -h ]]; then
      usage
      exit 0
    elif [[ "$1" == -- ]]; then
      others+=("${@:2}")
      break
    elif [[ "$1" == --* && " $switches " == *" $name "* ]]; then
      declare -g "$name=true"
      shift
    elif [[ "$1" == --* && " $values " == *" $name "* ]]; then
      (($# > 1)) || fail "$1 needs a value"
      declare -g "$name=$2"
      shift 2
    else
      others+=("$1")
      shift
    fi
  done
}

# quoted COMMAND...: the command as a line that a shell reads
quoted() {
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}
