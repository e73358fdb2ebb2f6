"""The SDK: what `import jupyter_gpu_platform as gpu` offers."""
