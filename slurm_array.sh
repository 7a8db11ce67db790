#!/bin/bash
# One SLURM job per machine type and autoencoder, and one for the classifier, which learns all types at once.
# Hand it in from the project's folder, on a file system that all nodes see:
#
#   jobs=$(sbatch --parsable slurm_array.sh)
#   sbatch --dependency=afterok:$jobs --wrap "python 02_evaluate.py result/dev --rank"
#
# The second line collects: when all jobs are done, it writes result.csv of every system from all score files, once they
# all fit each other and the models. (Scores of an earlier configuration are written over job by job.)
# The jobs may run at the same time: each has model and score files of its own, files appear whole or not at all, and
# the cache is shared. Do not run two jobs of the same system and machine type. A job that was killed goes on after its
# last epoch when the array is handed in again; finished models are kept.
#
#SBATCH --job-name=asd
# 6 machine types x 2 autoencoders, and the classifier:
#SBATCH --array=0-12
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=slurm_%A_%a.txt
# For GPUs: #SBATCH --gres=gpu:1; with several for one job, also `distribution: mirrored` in the YAML.
set -euo pipefail

types=(ToyCar ToyConveyor fan pump slider valve)
autoencoders=(baseline_ae tuned_ae)
n=${SLURM_ARRAY_TASK_ID:?hand this in with sbatch}

if ((n < ${#types[@]} * ${#autoencoders[@]})); then
    options=(--system "${autoencoders[n / ${#types[@]}]}" --machine-type "${types[n % ${#types[@]}]}")
else
    options=(--system l2_softmax)
fi
python 00_train.py -d "${options[@]}"
python 01_test.py -d --scores-only "${options[@]}"
