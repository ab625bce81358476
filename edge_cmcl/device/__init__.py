import os

# onnxruntime 1.29 and later send telemetry on Linux unless told not to before the import (design.md section 7).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
