#!/usr/bin/env bash
# What the system tests need beside Python: Debian packages, installed when root and missing; otherwise one line for each that lacks.
set -euo pipefail

missing=()
for pair in sshd:openssh-server ssh:openssh-client ip:iproute2 mount:mount chromium:chromium \
    munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client postgres:postgresql; do
    PATH="$PATH:/usr/sbin:/sbin:$(echo /usr/lib/postgresql/*/bin | tr " " :)" command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
    echo "skipped by the system tests: all that needs ${missing[*]} (not installed, and only root on Debian can install them here)"
    exit 0
fi
apt-get update -qq
# no service is started: the tests start their own sshd, Slurm and PostgreSQL
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
