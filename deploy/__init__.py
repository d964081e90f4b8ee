"""How the parts meet machines: the console command, the demo, and what surrounds a deployment."""
