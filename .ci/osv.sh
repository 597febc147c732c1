#!/usr/bin/env bash
# Downloads the vulnerabilities that OSV knows for every ecosystem in SBOMs, for images/vulnerabilities.py:
#   .ci/osv.sh .cache/osv sbom/*.cdx.json
# Fails where one is missing, so that a gate never passes without data. OSV_URL: a mirror, over https.
set -euo pipefail
url=${OSV_URL:-https://osv-vulnerabilities.storage.googleapis.com}
folder=${1:?usage: .ci/osv.sh FOLDER SBOM...}
shift

fail() {
  echo "osv: $1" >&2
  exit 1
}

# An ecosystem's name, for the type of a package URL.
ecosystem_of() {
  case $1 in
    deb) echo Debian ;;
    pypi) echo PyPI ;;
    npm) echo npm ;;
    golang) echo Go ;;
    apk) echo Alpine ;;
    *) fail "the SBOMs contain packages of type $1, whose ecosystem this script does not know" ;;
  esac
}

download() {
  local archive=$folder/$1.zip
  rm -rf "${folder:?}/$1"
  mkdir -p "$folder/$1"
  curl --proto '=https' --fail --silent --show-error --location --retry 3 --max-time 900 \
    --output "$archive" "$url/$1/all.zip" || fail "$url/$1/all.zip cannot be downloaded"
  python3 -m zipfile --extract "$archive" "$folder/$1" || fail "$url/$1/all.zip is no zip archive"
  rm "$archive"
  [ -n "$(find "$folder/$1" -name '*.json' -print -quit)" ] || fail "$url/$1/all.zip contains no vulnerabilities"
  echo "osv: $1: $(find "$folder/$1" -name '*.json' | wc -l) vulnerabilities"
}

[ $# -gt 0 ] || fail "usage: .ci/osv.sh FOLDER SBOM..."
[ -f "$1" ] || fail "there is no SBOM $1"
# Images themselves (oci) are no packages.
types=$(grep --no-filename --only-matching --extended-regexp '"pkg:[a-z0-9.+-]+/' "$@" |
  sed 's|"pkg:||; s|/||' | grep --invert-match --line-regexp 'oci' | sort --unique) || fail "the SBOMs contain no package"
for type in $types; do
  ecosystem=$(ecosystem_of "$type")
  download "$ecosystem"
done
