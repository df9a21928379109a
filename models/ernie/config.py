"""What ERNIE gives to the commands that all models share: its networks and its recipes.

Values with a source and an expected score are in recipes.yaml.
"""

from pathlib import Path

from models.common.finetune.networks import Networks

RECIPES = Path(__file__).with_name("recipes.yaml")
NETWORKS = Networks("ernie", Path(__file__).with_name("networks.yaml"))
