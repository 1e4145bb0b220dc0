#!/usr/bin/env bash
# Submission script for RELION's "Running" tab: Submit to queue? Yes; Queue submit command: sbatch;
# Standard submission script: this file. RELION replaces the names between XXX and XXX.
#SBATCH --job-name=pickeropt
#SBATCH --partition=XXXqueueXXX
#SBATCH --ntasks=XXXmpinodesXXX
#SBATCH --cpus-per-task=XXXthreadsXXX
#SBATCH --output=XXXoutfileXXX
#SBATCH --error=XXXerrfileXXX
#SBATCH --open-mode=append
#SBATCH --mem=16G
#SBATCH --time=12:00:00
##SBATCH --gres=gpu:1   # a second # switches a line off: remove one to ask for a GPU

set -euo pipefail

# Where pickeropt is installed, if it is not on the PATH of the compute nodes:
# source /path/to/venv/bin/activate

export OMP_NUM_THREADS=XXXthreadsXXX
XXXcommandXXX
