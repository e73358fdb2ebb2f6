"""Real Kubernetes on this machine: API server, controllers, scheduler, kubelets and containerd."""
