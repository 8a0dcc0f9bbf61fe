"""Runs mergetool under FSDP2 on CPUs: accelerate shards on accelerators only, and here it is told that a CPU will do.

Everything else is real: accelerate's plugin and wrapping, torch's fully_shard and DTensor, gloo between the processes.
"""

import os

os.environ |= {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}

from accelerate import state
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

_prepare = state.AcceleratorState.__init__


def _admit_cpu(self: state.AcceleratorState, *args: object, fsdp_plugin: object = None, **kwargs: object) -> None:
    _prepare(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin or FullyShardedDataParallelPlugin()


state.AcceleratorState.__init__ = _admit_cpu

if __name__ == "__main__":
    from torch.distributed.fsdp import FSDPModule

    from mergetool.align import run
    from mergetool.cli.main import main

    train = run._train

    def _train_sharded(trainer: object, *args: object) -> object:
        """As it is, and nothing may pass here for sharded that is not."""
        step = train(trainer, *args)
        assert isinstance(trainer.model, FSDPModule)
        assert all(hasattr(p, "placements") for p in trainer.model.parameters())
        return step

    run._train = _train_sharded
    main()
