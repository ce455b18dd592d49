"""The public Python API; `import dgmp` re-exports it."""
