#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment outside the clone, with another
# HOME, and runs what a new user runs there.
#   [EXTRA=demo] [SOURCE=1] bash tests/lib/try_wheel.sh [python3.11]
# EXTRA: an extra to install; with demo the digits are tried, too. SOURCE: install the source
# folder in place of the wheel.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
python=${1:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder/home PIP_DISABLE_PIP_VERSION_CHECK=1 JAX_PLATFORMS=cpu
# Nothing here runs for long: compile fast.
export XLA_FLAGS=--xla_backend_optimization_level=0 JAX_COMPILATION_CACHE_DIR=$folder/cache
unset PYTHONPATH
mkdir "$folder/home" "$folder/work"
"$python" -m venv "$folder/env"
cd "$folder/work"
bin=$folder/env/bin

# A copy, because setuptools writes into the folder that it builds.
git -C "$repository" ls-files -co --exclude-standard -z |
  tar -C "$repository" --null -T - -cf - | (mkdir ../source && tar -xf - -C ../source)
"$bin/python" -m pip wheel -q --no-deps --wheel-dir ../dist ../source
wheel=$(ls ../dist/unified_latents-*.whl)
"$bin/python" - "$wheel" <<'EOF'
import re, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
top = {name.split("/")[0] for name in archive.namelist()}
assert {t for t in top if not t.endswith(".dist-info")} == {"ul"}, top
(metadata,) = (n for n in archive.namelist() if n.endswith("METADATA"))
text = archive.read(metadata).decode()
relative = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match("https?://|#", t)]
assert not relative, f"links that do not work outside the repository: {relative}"
EOF
what=${SOURCE:+../source}
"$bin/python" -m pip install -q -c "$repository/constraints.txt" \
  "${what:-$wheel}${EXTRA:+[$EXTRA]}"

say() { echo "== $*"; }
run() {
  say "$form $*"
  if ! $form "$@" >log 2>&1; then cat log && exit 1; fi
}
form="$bin/python -m ul"
run train --config gaussian:smoke --workdir g1
run train --config gaussian:smoke2 --workdir g2 --config.stage1.workdir=g1
form=$bin/unified-latents
run evaluate --workdir g1
run evaluate --workdir g2 --num_examples 16
run sample --workdir g2 --num 4 --out samples
run plan bitrate --config gaussian:stage1

"$bin/python" - <<'EOF'
import pathlib, numpy as np
from PIL import Image
for i in range(40):
    folder = pathlib.Path("photos", "ab"[i % 2])
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(i).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
EOF
mine=(--config.data.source.path=photos --config.data.num_classes=2 --config.steps=2
  --config.batch_size=8 --config.validation.every=2 --config.validation.num_examples=4
  --config.eval.batch_size=4 --config.sampling.num_steps=2)
form="$bin/python -m ul"
run train --config folder:stage1 --workdir m1 "${mine[@]}"
form=$bin/unified-latents
run train --config folder:stage2 --workdir m2 --config.stage1.workdir=m1 "${mine[@]}"
run evaluate --workdir m1 --num_examples 4
run evaluate --workdir m2 --num_examples 4

if [[ ${EXTRA:-} == *demo* ]]; then
  run train --config digits:smoke --workdir d1
  form="$bin/python -m ul"
  run train --config digits:smoke2 --workdir d2 --config.stage1.workdir=d1
  run evaluate --workdir d1
  run evaluate --workdir d2 --num_examples 16
  run sample --workdir d2 --num 4 --grid --out samples.png
  run plan bitrate --config digits:stage1
else
  say "digits without the extra: one line, exit code 64"
  code=0
  $form train --config digits:smoke --workdir d1 >log 2>&1 || code=$?
  [[ $code == 64 ]] && [[ $(tail -n 1 log) == *"pip install '.[demo]'"* ]] || {
    cat log && echo "exit code $code" && exit 1
  }
  ! grep -q Traceback log || { cat log && exit 1; }
fi
say "the wheel works"
