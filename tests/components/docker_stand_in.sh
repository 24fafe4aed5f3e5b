#!/bin/sh
# A `docker` that keeps images as files in the folder $DOCKER_STATE: enough of it for components/build.py, and fast.
#
# The last argument of `build` must be a context: a folder with the Dockerfile and a wheel.
# `pull` finds what has a file in registry/. `build` fails for the image that the file `fails` names, and interrupts the
# process that called it for the one that `interrupts` names. What was done is in `calls`.
set -eu
cd "$DOCKER_STATE"
command=$1
for last; do :; done

file_of() { printf %s "$1" | tr /: ++; }
of_step() { [ -f "$1" ] && case "$tag" in */"$(cat "$1")":*) return 0 ;; esac; return 1; }

write_image() { # id, name of the base, id of the base
  printf '[{"Id": "%s", "Size": 10000000, "Config": {"Labels": {"org.opencontainers.image.base.name": "%s", ' "$1" "$2"
  printf '"org.opencontainers.image.base.digest": "%s"}}}]\n' "$3"
}

case "$command" in
  image)
    [ -f "images/$(file_of "$last")" ] || { echo "Error: No such image: $last" >&2; exit 1; }
    cat "images/$(file_of "$last")"
    ;;
  pull)
    echo "pull $last" >> calls
    [ -f "registry/$(file_of "$last")" ] || { echo "Error: manifest for $last not found" >&2; exit 1; }
    write_image "$(cat "registry/$(file_of "$last")")" "" "" > "images/$(file_of "$last")"
    ;;
  build)
    while [ $# -gt 0 ]; do
      case "$1" in
        --tag) tag=$2 ;;
        org.opencontainers.image.base.name=*) name=${1#*=} ;;
        org.opencontainers.image.base.digest=*) id=${1#*=} ;;
        BASE_IMAGE=*) [ -f "images/$(file_of "${1#*=}")" ] ;;
      esac
      shift
    done
    [ -f "$last/Dockerfile" ] && [ -f "$last"/sat_xception-*.whl ]
    echo "build $tag" >> calls
    if of_step fails; then exit 1; fi
    if of_step interrupts; then kill -INT "$PPID"; exec sleep 10; fi
    write_image "sha256:of-$tag" "$name" "$id" > "images/$(file_of "$tag")"
    ;;
  tag) cp "images/$(file_of "$2")" "images/$(file_of "$3")" ;;
  push) echo "push $last" >> calls ;;
  *) echo "docker $command isn't known here" >&2; exit 1 ;;
esac
