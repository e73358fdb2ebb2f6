"""The notebook's side: the ``%%gpu_run`` magic, and a job's output shown as if the cell had run here."""
