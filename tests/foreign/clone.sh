#!/bin/sh
# Copies the application to a folder, as a git clone of its own: clone.sh FOLDER
set -eu
cp -R "$(dirname "$0")/application" "$1"
cd "$1"
git init --quiet
git add .
git -c user.name=Ada -c user.email=ada@example.com commit --quiet --message "Guest book"
