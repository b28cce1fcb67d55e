"""The emulator as a product of its own, without the plugin."""
