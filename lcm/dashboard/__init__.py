"""The dashboard: a page where people describe photos, correct captions and compare models.

`app` puts the pages together and notebooks/dashboard.ipynb shows them; `python -m lcm.dashboard` serves it by Voila.
Nothing here imports TensorFlow or torch.
"""
