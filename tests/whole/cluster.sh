#!/usr/bin/env bash
# A Slurm of one machine for tests, all of it in one folder: nothing in /etc, no systemd, no cgroups, no
# accounting, nothing enforced but time limits. Needs munged, slurmctld, slurmd, sbatch and srun (Debian: munge
# slurmctld slurmd slurm-client), and root for the two GPUs that are none.
#   cluster.sh start FOLDER PORT      takes PORT and PORT + 1; prints what to put into the environment
#   cluster.sh stop FOLDER
set -euo pipefail
action=$1
folder=$(realpath -m "$2")
host=$(hostname -s)
user=$(id -un)
export SLURM_CONF=$folder/slurm.conf
export PATH=$PATH:/usr/sbin

write_settings() {
    # GPUs by devices that are not ordinary files: only then does Slurm set CUDA_VISIBLE_DEVICES.
    for number in 0 1; do mknod -m 666 "$folder/nvidia$number" c 1 3; done
    echo "NodeName=$host Name=gpu Flags=nvidia_gpu_env File=$folder/nvidia[0-1]" > "$folder/gres.conf"
    cat > "$SLURM_CONF" << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock
CredType=cred/munge
SlurmctldPort=$1
SlurmdPort=$(($1 + 1))
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/ended.txt
ReturnToService=2
MinJobAge=600
KillWait=30
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=1-0 DefMemPerCPU=500 State=UP
END
}

start() {
    mkdir -p "$folder"/{state,spool,log,run,bin}
    chmod 755 "$folder" "$folder"/{log,run}
    (umask 077 && head -c 128 /dev/urandom > "$folder/munge.key")
    write_settings "$1"
    # The plugin takes SLURM_CONF away from srun.
    printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" > "$folder/bin/srun"
    chmod +x "$folder/bin/srun"
    munged --force --key-file="$folder/munge.key" --socket="$folder/run/munge.sock" \
        --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" \
        --seed-file="$folder/run/munge.seed"
    slurmctld -c
    slurmd
    for _ in $(seq 150); do
        if [ "$(sinfo --noheader --partition main --format %t 2> /dev/null)" = idle ]; then
            echo "SLURM_CONF=$SLURM_CONF"
            echo "PATH=$folder/bin:$PATH"
            return
        fi
        sleep 0.1
    done
    tail "$folder"/log/*.log >&2
    stop
    return 1
}

stop() {
    scancel --user "$user" 2> /dev/null || true
    sleep 0.5
    for name in slurmd slurmctld munged; do
        if [ -s "$folder/run/$name.pid" ]; then
            number=$(cat "$folder/run/$name.pid")
            kill "$number" 2> /dev/null || true
            for _ in $(seq 100); do
                if ! kill -0 "$number" 2> /dev/null; then break; fi
                sleep 0.1
            done
        fi
    done
}

"$action" "${@:3}"
