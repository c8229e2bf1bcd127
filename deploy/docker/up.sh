#!/bin/sh
# A trial of Tessera in containers of this machine: image, keys and cluster file, servers, upload, prediction.
# Once more, it goes on with what is there.  `docker compose down` stops it; with --volumes, models and stock are gone too.
set -eu
cd "$(dirname "$0")"
if [ "$(id -u)" -eq 0 ]; then
    echo "up.sh: run this as an ordinary user who may use docker: the containers run as you, who own the key files" >&2
    exit 1
fi
TESSERA_USER="$(id -u):$(id -g)"
export TESSERA_USER

docker compose build
if [ ! -e site/cluster.toml ]; then
    mkdir -p -m 0700 site
    # Everybody's key pair is made here: for a trial only.
    docker run --rm --network none --user "$TESSERA_USER" --volume "$PWD/site:/site" tessera:0.2.0 \
        init --name trial --dealer dealer:7000 --party party0=party0:7001 --party party1=party1:7001 \
        --party party2=party2:7001 --client clinic --listen dealer=0.0.0.0:7000 --listen party0=0.0.0.0:7001 \
        --listen party1=0.0.0.0:7001 --listen party2=0.0.0.0:7001 --out /site
fi
docker compose up --detach --wait
docker compose run --rm predict
