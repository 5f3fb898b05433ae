"""Parts of the network and the network composed of them.

The parts are built one after the other and handed to `ReidNetwork`:

    backbone = build_backbone("resnet50", last_stride=1)
    pooling = build_pooling("gem", backbone)
    neck = build_neck("resnet50", pooling.width(backbone.out_channels))
    eigenlayer = build_eigenlayer(neck.out_features, 1024)
    classifier = build_classifier("linear", eigenlayer.out_features, num_classes)
    network = ReidNetwork(backbone, pooling, neck, eigenlayer, classifier, dropout=0.5)
"""
